"""A relay that keeps what it saw: between a client and rekeyd, or between rekeyd and mongod."""

import socket
import threading
from contextlib import suppress

from harness.mongo import Upstream
from harness.ports import HOST, free_port
from wire import receive


class Tap(Upstream):
    """In front of target ("host:port"); as an upstream, with rekeyd's keys behind control."""

    def __init__(self, target: str, control: Upstream = None):
        self.control = control
        self._target = target.rsplit(":", 1)
        self._listener = socket.create_server((HOST, free_port()))
        self._sockets = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        self.requests, self.replies = [], []

    @property
    def addresses(self) -> list:
        return ["%s:%d" % self._listener.getsockname()]

    @property
    def uri(self) -> str:
        return self.control.uri if self.control else super().uri

    def forget(self):
        self.requests.clear()
        self.replies.clear()

    def _accept(self):
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                for pair in ((client, server, self.requests), (server, client, self.replies)):
                    thread = threading.Thread(target=self._relay, args=pair, daemon=True)
                    self._threads.append(thread)
                    thread.start()

    @staticmethod
    def _relay(source, target, seen):
        with suppress(OSError, ValueError):
            while (message := receive(source)) is not None:
                seen.append(message)
                target.sendall(message.raw)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
