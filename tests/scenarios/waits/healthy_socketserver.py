# SPDX-License-Identifier: MIT
# expect: none
"""A ThreadingTCPServer without requests, but with one client that keeps its connection."""
import socket
import socketserver


class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


class Server(socketserver.ThreadingTCPServer):
    def service_actions(self):
        if not client:
            client.append(socket.create_connection(self.server_address))
            print("ready", flush=True)


client = []
Server(("127.0.0.1", 0), Echo).serve_forever()
