# SPDX-License-Identifier: MIT
# expect: none
"""A client that waits two seconds for each answer of a slow server."""
import http.server
import threading
import time
import urllib.request


class Slow(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(2)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Slow)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
while True:
    urllib.request.urlopen("http://127.0.0.1:%d/" % server.server_port).close()
