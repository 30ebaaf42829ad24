/* A custom stage that drops whatever comes, and counts it: what is left of a receive path without a receiver.
 * The harness builds it against xdpstack.get_include(); xdpstack/bench/programs.py loads it and says where it counts. */
#include <xdpstack_stage.h>

static uint64_t nowhere;
__attribute__((visibility("default"))) volatile uint64_t *dropped = &nowhere;

static void drop_all(void *self, struct xs_batch *b) {
    (void)self;
    for (uint32_t i = 0; i < b->n; i++) xs_drop(b, i, XS_REASON_HOOK);
    *dropped += b->n;
}

static const struct xs_stage_def drop_def = {.name = "drop", .fn = drop_all, .edges = {"accept"}};

XS_EXPORT_STAGE(drop_def, NULL)
