"""Prints what a Python client tells its application, an event a line: listen.py CLIENT URL [ACCEPT]."""

import json
import sys

import httpx


def show(event):
    print(json.dumps({"name": event.event, "data": event.data, "id": event.id or ""}), flush=True)


def main(client, url, accept=None):
    headers = {} if accept is None else {"Accept": accept}
    with httpx.Client(timeout=None, headers=headers) as http:
        if client == "httpx-sse":
            from httpx_sse import connect_sse

            with connect_sse(http, "GET", url) as source:
                for event in source.iter_sse():
                    show(event)
        else:
            from sseclient import SSEClient

            with http.stream("GET", url) as response:
                for event in SSEClient(response.iter_bytes()).events():
                    show(event)


main(*sys.argv[1:])
