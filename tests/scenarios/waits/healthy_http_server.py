# SPDX-License-Identifier: MIT
# expect: none
"""An idle http.server, in a thread; the main thread joins it."""
import http.server
import threading
import urllib.request

server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
server.RequestHandlerClass.log_message = lambda *args: None
thread = threading.Thread(target=server.serve_forever, name="http")
thread.start()
try:
    urllib.request.urlopen("http://127.0.0.1:%d/" % server.server_port)
except OSError:
    pass
print("ready", flush=True)
thread.join()
