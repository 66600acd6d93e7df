"""Asks [GET] again and again, a connection each: the load of bench/mesh.py.

python bench/mesh_asker.py PORT REQUESTS    prints the seconds of each as JSON
"""

from __future__ import annotations

import json
import socket
import sys
import time

REQUEST = b"[GET]GPS\x00\x05"
ANSWER_BYTES = 14


def main(port: int, requests: int) -> list[float]:
    """The seconds that each request took, from connecting to the server's close."""
    taken = []
    for _ in range(requests):
        begin = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(REQUEST)
            answer = b""
            while part := connection.recv(256):
                answer += part
        assert len(answer) == ANSWER_BYTES, answer
        taken.append(time.perf_counter() - begin)
    return taken


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]))))
