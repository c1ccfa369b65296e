"""usage: client.py URL

A loop with httpx, as an app would write it. Prints one JSON line for each event. Runs until it is killed.
"""
import json
import sys
import time

import httpx

url = sys.argv[1]
last_id, retry = "", 3.0


def dispatch(event, data):
    print(json.dumps({"type": event or "message", "data": data}), flush=True)


while True:
    headers = {"Accept": "text/event-stream"}
    if last_id:
        headers["Last-Event-ID"] = last_id
    try:
        # The default read timeout is 5 s; the hub sends a ping after 15 s of inactivity.
        with httpx.stream("GET", url, headers=headers, timeout=httpx.Timeout(5, read=45)) as response:
            response.raise_for_status()
            event, data, event_id = "", [], None
            for line in response.iter_lines():
                line = line.rstrip("\n")
                name, _, value = line.partition(":")
                value = value[1:] if value.startswith(" ") else value
                if not line:
                    if event_id is not None:
                        last_id = event_id  # not when reading its line, because the event may be incomplete
                    if data:
                        dispatch(event, "\n".join(data))
                    event, data, event_id = "", [], None
                elif name == "data":
                    data.append(value)
                elif name == "event":
                    event = value
                elif name == "id":
                    event_id = value
                elif name == "retry" and value.isdigit():
                    retry = int(value) / 1000
    except httpx.HTTPError as error:
        print(repr(error), file=sys.stderr)
    time.sleep(retry)
