# SPDX-License-Identifier: MIT
"""Run by gdb, attached to a process: prints the stack of each thread as native_driver.c does. Functions that were inlined,
and those that ended by jumping into another one, have no frame of their own and are left out."""

import gdb

for thread in gdb.selected_inferior().threads():
    thread.switch()
    print("thread %d" % thread.ptid[1])
    frame = gdb.newest_frame()
    while frame is not None:
        if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
            print("frame %x %s" % (frame.pc(), (frame.name() or "?").replace(" ", "")))
        frame = frame.older()
