# SPDX-License-Identifier: MIT
# expect: none
"""An idle asyncio server with one connection on which nothing comes."""
import asyncio


async def echo(reader, writer):
    while True:
        writer.write(await reader.readline())


async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    connection = await asyncio.open_connection(*server.sockets[0].getsockname())
    print("ready", flush=True)
    await server.serve_forever()
    return connection


asyncio.run(main())
