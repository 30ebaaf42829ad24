/* A custom stage that sends every second packet of a batch by another edge, or none: with `ways` 1 all `next` are equal and the
 * walk takes the batch on as it is, with 2 it scatters it. Both edges lead to the same row. */
#include <xdpstack_stage.h>

__attribute__((visibility("default"))) volatile uint32_t ways = 1;

static void split_batch(void *self, struct xs_batch *b) {
    (void)self;
    uint32_t mask = ways - 1;
    for (uint32_t i = 0; i < b->n; i++) b->next[i] = (uint8_t)(i & mask);
}

static const struct xs_stage_def split_def = {
    .name = "split", .fn = split_batch, .edges = {"accept", "other"}};

XS_EXPORT_STAGE(split_def, NULL)
