"""taps: whole frames to those who claimed them.

Off by default: taps.rx is on the path from the first Stack.frames() on a claim until the last is closed.

taps.rx
=======
Does: puts a frame whose claim somebody reads through `Stack.frames()` on that reader's queue, whole.
Mirrors: packet_rcv and its receive queue, for a socket that takes what it matches instead of a copy.
Reads: data_off, pkt_len, device; the claim id that the XDP program put before the frame.
Writes: payload_off, payload_len, socket, owner QUEUED, owner_device, nexthop (the bytes charged).
Next:
    receive: nobody reads this claim's frames.
Drops:
    SOCKET_RCVBUFF: the reader's buffer is full.
    PROTO_MEM: the queues together have all of the worker's frames but what its rings, and sending, are to have.
Holds: nothing. What is queued is the reader's.
State: which claim is read by whom (csrc/tables/frame_claims.h), published by Stack.frames().
Cost: benchmarks/stages/bench_taps.py
Differs from Linux:
    - A packet socket gets a copy and the stack goes on with the frame; here the claim's reader takes it.
    - Captures (copies) are not there yet.
"""
