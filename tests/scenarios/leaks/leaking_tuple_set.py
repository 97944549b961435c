# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: crawler.visited: set
"""A crawler's set of what it has visited, as tuples."""
import time


class Crawler:
    def __init__(self):
        self.visited = set()

    def visit(self, host, number):
        self.visited.add((host, "/a/directory/of/many/pages/page-%d.html" % number))


crawler = Crawler()
print("ready", flush=True)
for step in range(13000):
    for number in range(120):
        crawler.visit("example.org", step * 120 + number)
    time.sleep(0.01)
time.sleep(3600)
