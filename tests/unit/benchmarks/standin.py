"""A stand-in for `flik up` that keeps the wire contract and can be told to break promises.

`STANDIN_FAULT`: `lose` never completes every tenth task, `twice` counts every tenth
completion twice, `orphan` leaves a process behind, `dead` exits at once.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections import deque

FAULT = os.environ.get("STANDIN_FAULT", "")
SLOTS = int(os.environ.get("WORKER_CONCURRENCY", "256"))
TICK_S = 0.002


class Queue:
    def __init__(self):
        self.status = {}
        self.waiting = [deque(), deque(), deque()]
        self.completed = 0

    def submit(self, task):
        task_id = str(uuid.uuid4())
        self.status[task_id] = "QUEUED"
        self.waiting[task["priority"]].append(task_id)
        return {"taskId": task_id, "status": "QUEUED", "createdAt": "2026-01-01T00:00:00.000Z"}

    async def work(self):
        while True:
            for _ in range(SLOTS):
                lane = next((lane for lane in self.waiting if lane), None)
                if lane is None:
                    break
                self.complete(lane.popleft())
            await asyncio.sleep(TICK_S)

    def complete(self, task_id):
        tenth = int(task_id[-1], 16) == 0
        if FAULT == "lose" and tenth:
            return
        self.completed += 2 if FAULT == "twice" and tenth else 1
        self.status[task_id] = "COMPLETED"

    def metrics(self):
        depth = [f'flik_queue_depth{{task_type="TEXT",priority="{p}"}} {len(w)}' for p, w in enumerate(self.waiting)]
        return "\n".join(
            [
                "# TYPE python_info gauge",
                "python_info 1.0",
                "# TYPE flik_tasks_submitted_total counter",
                f'flik_tasks_submitted_total{{task_type="TEXT"}} {len(self.status)}',
                "# TYPE flik_tasks_completed_total counter",
                f'flik_tasks_completed_total{{task_type="TEXT"}} {self.completed}',
                "# TYPE flik_queue_depth gauge",
                *depth,
                "",
            ]
        )


class Http(asyncio.Protocol):
    def __init__(self, queue):
        self.queue = queue
        self.data = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data
        head, found, rest = self.data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        size = int(headers.get("content-length", 0))
        if found and len(rest) >= size:
            self.data = rest[size:]
            method, path, _ = lines[0].split(" ")
            status, body = self.answer(method, path, headers, rest[:size])
            head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\ncontent-type: application/json\r\n\r\n"
            self.transport.write(head.encode() + body)

    def answer(self, method, path, headers, body):
        if path == "/health":
            return 200, b'{"status":"UP"}'
        if path == "/metrics":
            return 200, self.queue.metrics().encode()
        if not headers.get("authorization", "").startswith("bearer "):
            return 401, b"{}"
        if method == "GET":
            status = self.queue.status.get(path.rpartition("/")[2])
            return (200, json.dumps({"status": status}).encode()) if status else (404, b"{}")
        if path == "/api/v1/tasks:batch":
            items = [{"status": 202, "task": self.queue.submit(task)} for task in json.loads(body)["tasks"]]
            return 207, json.dumps({"items": items}).encode()
        return 202, json.dumps(self.queue.submit(json.loads(body))).encode()


async def serve(port):
    queue = Queue()
    server = await asyncio.get_running_loop().create_server(lambda: Http(queue), "127.0.0.1", port, backlog=512)
    async with server:
        await queue.work()


if __name__ == "__main__":
    if FAULT == "dead":
        sys.exit("the stand-in was told to die")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits it ignored
    if FAULT == "orphan":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        asyncio.run(serve(int(sys.argv[sys.argv.index("--port") + 1])))
    except KeyboardInterrupt:
        sys.exit(0)
