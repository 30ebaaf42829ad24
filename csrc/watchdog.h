/* The dead-man watchdog: as long as the workers make progress it puts off the deadline after which the XDP program leaves
 * every frame to the kernel.
 *
 *      worker:   RX rings, `polls` ----read---->  watchdog thread  ----store---->  deadline_ns in xs_deadman (mapped)
 *                                                 every window/8                    ^
 *                                                                  XDP program -----+  lifts while now < deadline_ns
 *
 * What it detects is work that waits and no progress, not idleness. A worker is alive if all its RX rings are empty and no
 * other worker has packets for it (nobody has to do anything), or if it has finished a poll since it was last looked at
 * (somebody does). If all workers are alive the deadline moves to now + window. So a process that sleeps in epoll_wait, for
 * days, is alive; one that has packets and does not fetch them loses the traffic between 7/8 and 9/8 of a window after its
 * last poll, and has it back at the first look after the next one.
 *
 * The thread is C, without the GIL: a busy interpreter does not starve it, and the process being stopped (SIGSTOP, a
 * debugger, a frozen cgroup) stops it too, which is the point. When the process dies there is nothing to do: its links are
 * closed, and the program with them.
 *
 * It reads only what is shared: the producer and consumer index of the rings, the workers' counts of polls. Queues come and
 * go under the stack's ports_lock, which it holds while it looks.
 */
#ifndef XS_WATCHDOG_H
#define XS_WATCHDOG_H

#include <stdint.h>

#include "ffi/31_watchdog.cdef.h"

#define XS_WATCHDOG_LOOKS 8u /* in a window */

#endif
