/* Socket filters: classic BPF programs. Meaning: xdpstack/udp/bpf.py. */

struct xs_stack;
struct xs_socket;

/* Attaches a checked classic BPF program (code, jt, jf, k each, as struct sock_filter); `n` 0 detaches. Returns when no
 * worker runs the one before. */
struct xs_filter_code {
    uint16_t code;
    uint8_t jt, jf;
    uint32_t k;
};
int xs_socket_set_filter(struct xs_stack *stack, struct xs_socket *socket,
                         const struct xs_filter_code *program, uint32_t n);
