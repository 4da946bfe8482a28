"""A server in front of a real Vault that hands requests on, and misbehaves where a test says so."""

import http.server
import ssl
import threading
import urllib.error
import urllib.request


class ScriptedVault:
    """
    answers: path ("transit/decrypt/rekey") to a list of answers, each used once, in order: (status,
    headers, body bytes), or a function that is called with the handler. Everything else is Vault's.
    requests: (path, token) of all that came. namespaces: what the header X-Vault-Namespace said.
    """

    def __init__(self, vault):
        self.vault = vault
        self.answers = {}
        self.requests = []
        self.namespaces = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(vault.certificates.issue(f"scripted-{self.port}"))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _next(self, handler):
        path = handler.path.removeprefix("/v1/")
        self.requests.append((path, handler.headers.get("X-Vault-Token")))
        self.namespaces.append((path, handler.headers.get("X-Vault-Namespace")))
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        wanted = self.answers.get(path)
        if not wanted:
            return self._of_vault(handler, body)
        answer = wanted.pop(0)
        return answer(handler) if callable(answer) else answer

    def _of_vault(self, handler, body):
        url = self.vault.address + handler.path
        request = urllib.request.Request(url, body or None, method=handler.command)
        for name in ("X-Vault-Token", "X-Vault-Request"):
            if name in handler.headers:
                request.add_header(name, handler.headers[name])
        try:
            context = ssl.create_default_context(cafile=self.vault.certificates.ca_file)
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                return answer.status, {}, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, {}, error.read()

    def _handler(self):
        scripted = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self):
                answer = scripted._next(self)
                if answer is None:
                    self.close_connection = True
                    return
                status, headers, body = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = serve

            def log_message(self, *_):
                pass

        return Handler
