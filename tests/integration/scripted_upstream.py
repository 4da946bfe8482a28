"""A server that says what a test tells it to: the replies that a real mongod never sends."""

import socket
import threading
from contextlib import suppress

import pytest

from harness.mongo import Upstream
from harness.ports import HOST, free_port
from wire import receive


class ScriptedUpstream(Upstream):
    """
    Answers each request with the bytes that script(request) returns; with nothing when it returns
    b"". hang_up: close the connection after that. greeting: sent on accept, before any request.
    rekeyd keeps its keys in the real servers behind control.
    """

    def __init__(self, control: Upstream):
        self.control = control
        self.script = None
        self.hang_up = False
        self.greeting = b""
        listener = socket.create_server((HOST, free_port()))
        self._address = listener.getsockname()
        self._connections = set()
        self.listen_again(listener)

    def answer(self, script, hang_up=False, greeting=b""):
        """What happens on connections from now on."""
        self.script, self.hang_up, self.greeting = script, hang_up, greeting

    @property
    def addresses(self) -> list:
        return ["%s:%d" % self._address]

    @property
    def uri(self) -> str:
        return self.control.uri

    def _accept(self):
        with suppress(OSError):  # the listener was closed
            while True:
                connection, _ = self._listener.accept()
                self._connections.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        script, hang_up, greeting = self.script, self.hang_up, self.greeting
        with connection, suppress(OSError, ValueError):
            connection.sendall(greeting)
            while (request := receive(connection)) is not None:
                connection.sendall(script(request))
                if hang_up:
                    break
        self._connections.discard(connection)

    def stop_listening(self):
        """Nobody else gets in; whoever is connected stays."""
        with suppress(OSError):  # it was shut down before
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def listen_again(self, listener=None):
        self._listener = listener or socket.create_server(self._address)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self):
        self.stop_listening()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@pytest.fixture(scope="module")
def upstream(single_member_set):
    with ScriptedUpstream(single_member_set) as upstream:
        yield upstream
