"""Requests of the foreign client aiocoap; prints the code of each answer."""

import asyncio
import sys

import aiocoap


async def main(address):
    context = await aiocoap.Context.create_client_context()

    async def post(name, path, payload, mtype=aiocoap.CON):
        request = aiocoap.Message(
            code=aiocoap.POST, mtype=mtype, uri=f"coap://{address}{path}", payload=payload
        )
        response = await asyncio.wait_for(context.request(request).response, 20)
        print(name, response.code.dotted)

    await post("con", "/?t=python", b"con")
    await post("non", "/data", b"non", aiocoap.NON)
    await post("blocks", "/", b"b" * 3000)
    await post("topic", "/?t=a%20b", b"x")
    await post("missing", "/nowhere", b"x")
    await post("large", "/", b"x" * 70_000)
    await context.shutdown()


asyncio.run(main(sys.argv[1]))
