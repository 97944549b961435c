# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: by_customer: collections.defaultdict
"""A look-up in a defaultdict makes an entry, whoever asks."""
import collections
import time

by_customer = collections.defaultdict(list)


def orders_of(customer):
    return by_customer[customer]


print("ready", flush=True)
for step in range(13000):
    for number in range(120):
        orders_of("customer %d of a shop at the corner of a long street" % (step * 120 + number))
    time.sleep(0.01)
time.sleep(3600)
