"""An ordinary UDP client on kernel sockets: udp_client.py PORT COUNT ADDRESS... Sends, and checks every answer.

COUNT datagrams of mixed sizes go to the addresses in turn: most fit the MTU, one in fifty is fragmented. No more
are outstanding than the server's receive buffer is sure to hold. Prints a line of JSON.
"""

import json
import random
import select
import socket
import struct
import sys
import time

WINDOW = 128
WINDOW_BYTES = 48 * 1024  # with what each datagram costs beside its bytes: within the default receive buffer (208 KiB)
PATIENCE = 3.0  # seconds without any answer before the outstanding ones count as lost
LARGE_EVERY = 50
NUMBER = struct.Struct("!I")


class Client:
    """One run: what is outstanding, what came back right, what came back wrong."""

    def __init__(self, port: int, count: int, addresses: list[str]) -> None:
        self.count = count
        self.random = random.Random(7)
        self.noise = self.random.randbytes(1 << 16)
        self.sockets = [self.connect(address, port) for address in addresses]
        self.outstanding: dict[int, bytes] = {}
        self.bytes_out = 0
        self.sent = self.answered = self.wrong = self.fragmented = 0

    @staticmethod
    def connect(address: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.connect((address, port))
        sock.setblocking(False)
        return sock

    def payload(self, number: int) -> bytes:
        large = number % LARGE_EVERY == LARGE_EVERY - 1
        size = self.random.randint(2000, 30000) if large else self.random.choice((4, 18, 64, 256, 512, 1024, 1400))
        self.fragmented += large
        start = self.random.randrange(len(self.noise) - size)
        return NUMBER.pack(number) + self.noise[start : start + size - 4]

    def send(self) -> None:
        while self.sent < self.count and len(self.outstanding) < WINDOW and self.bytes_out < WINDOW_BYTES:
            data = self.payload(self.sent)
            self.outstanding[self.sent] = data
            self.bytes_out += len(data)
            self.sockets[self.sent % len(self.sockets)].send(data)
            self.sent += 1

    def receive(self, sock: socket.socket) -> None:
        while True:
            try:
                data = sock.recv(65536)
            except BlockingIOError:
                return
            expected = self.outstanding.pop(NUMBER.unpack_from(data)[0], None)
            if expected is None or data != expected:
                self.wrong += 1
            else:
                self.answered += 1
                self.bytes_out -= len(data)

    def run(self) -> None:
        heard = time.monotonic()
        while self.sent < self.count or self.outstanding:
            self.send()
            ready, _, _ = select.select(self.sockets, [], [], 0.2)
            for sock in ready:
                self.receive(sock)
                heard = time.monotonic()
            if time.monotonic() - heard > PATIENCE:
                return


def main() -> None:
    client = Client(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
    began = time.monotonic()
    client.run()
    result = {"sent": client.sent, "answered": client.answered, "wrong": client.wrong, "fragmented": client.fragmented}
    print(json.dumps({**result, "seconds": round(time.monotonic() - began, 2)}))


if __name__ == "__main__":
    main()
