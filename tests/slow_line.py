"""`slow_line.py HOST PORT`, a `ProxyCommand` of ssh: a line with 20 ms of delay each way, and 1 % of the packets late.

A packet that is lost is sent again after some 200 ms, and those behind it wait: that is what is done here, as network
namespaces have no delay without a module of the kernel's that many machines lack.
"""

import os
import queue
import random
import socket
import sys
import threading
import time

DELAY_S, AGAIN_S, LOSS = 0.02, 0.2, 0.01


def forward(read, write) -> None:
    """Pass on what is read, later; closes with it."""
    packets: queue.Queue = queue.Queue()

    def send() -> None:
        while (packet := packets.get()) is not None:
            due, content = packet
            time.sleep(max(0.0, due - time.monotonic()))
            write(content)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    while content := read(1 << 14):
        late = AGAIN_S if random.random() < LOSS else 0.0
        packets.put((time.monotonic() + DELAY_S + late, content))
    packets.put(None)
    thread.join()


def main() -> None:
    """Until either side closes."""
    line = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    inwards = threading.Thread(target=forward, args=(line.recv, lambda it: os.write(1, it)), daemon=True)
    inwards.start()
    threading.Thread(target=forward, args=(lambda size: os.read(0, size), line.sendall), daemon=True).start()
    inwards.join()


if __name__ == "__main__":
    main()
