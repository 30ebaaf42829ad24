/* An address as the tables keep it: two halves in host order, IPv4 mapped. Read by cffi and by C (tables/addr.h). */

struct xs_addr {
    uint64_t hi, lo;
};
