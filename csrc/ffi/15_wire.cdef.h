/* Headers as text (csrc/wire/). Read by cffi and by C. */

/* The headers of the frame of `len` bytes, on one line, as far as they are whole. As snprintf: returns the length that the
 * text has, and writes at most `cap` bytes of it with the terminating zero. */
int xs_wire_print(const uint8_t *frame, uint32_t len, char *out, uint32_t cap);
