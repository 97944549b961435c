# SPDX-License-Identifier: MIT
# expect: none
# What is missing in a cache is computed in the handler, in most of the program's time.
cache = {}


def compute(n):
    return sum(i * i for i in range(n % 500 + 1000))


def get(n):
    try:
        return cache[n]
    except KeyError:
        cache[n] = compute(n)
        return cache[n]


print("ready")
i = 0
while True:
    get(i)
    i += 1
    if len(cache) > 10000:
        cache.clear()
