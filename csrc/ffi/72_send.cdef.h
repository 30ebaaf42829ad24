/* Whole frames from one buffer, off the GIL. */
struct xs_packed {
    const uint8_t *data;     /* frames one behind the other, each from its Ethernet header on, without FCS */
    const uint32_t *lengths; /* of each, in bytes */
    uint32_t n;              /* frames in the buffer */
};
/* Whether all could be sent by the device: 0; or -EINVAL, a frame has no Ethernet header; -EMSGSIZE, a frame takes more than
 * there may be; -ENODATA, the buffer does not end where the frames do; -ENETDOWN. */
int xs_packed_check(struct xs_stack *stack, uint32_t device, const struct xs_packed *packed, uint64_t bytes);
/* Sends frames of a buffer that was checked, from its first again when it is through: from number `start` on `most` frames, as
 * long as there is room and no Python hook has packets parked. Returns how many were taken, or -ENETDOWN. */
int64_t xs_packed_send(struct xs_stack *stack, uint32_t device, const struct xs_packed *packed,
                       uint64_t start, uint64_t most);
