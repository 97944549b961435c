# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: server.sessions['
# says: .history: dict
"""Eight sessions that stay, each with a history that is never cut."""
import time


class Session:
    def __init__(self, user):
        self.user = user
        self.history = {}

    def visit(self, number):
        self.history[number] = "page %d of %s: " % (number, self.user) + "x" * 300


class Server:
    def __init__(self):
        self.sessions = {user: Session(user) for user in ("ada", "bob", "cleo", "dan", "eve", "fay", "gus", "hal")}


server = Server()
print("ready", flush=True)
for step in range(13000):
    for session in server.sessions.values():
        for number in range(8):
            session.visit(step * 8 + number)
    time.sleep(0.01)
time.sleep(3600)
