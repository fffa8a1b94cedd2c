"""What traces cost: processor time of a request with them off, at a hundredth, and at all. Run by hand:

    python tests/clients/trace_cost.py target/release/residual

Three servers take turns, so that whatever else the machine does hits them alike; the time is that of all their threads.
"""
import contextlib
import http.client
import http.server
import json
import os
import pathlib
import statistics
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROUNDS = 15


class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Server:
    def __init__(self, binary, *flags):
        ports = ["--http-port", "0", "--grpc-port", "0", "--log-format", "json"]
        threads = ["--instances", "1", "--intra-op-threads", "1"]
        command = [binary, "serve", *ports, *threads, *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        ready = next(line for line in self.process.stderr if '"message":"ready"' in line)
        self.connection = http.client.HTTPConnection(json.loads(ready)["address"], timeout=60)
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def ask(self, path, body):
        self.connection.request("POST" if body else "GET", path, body=body)
        answer = self.connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status

    def cpu_microseconds(self):
        """Nanoseconds on a core are the first number that the scheduler keeps of each thread."""
        total = 0
        for thread in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            # A thread may have ended meanwhile.
            with contextlib.suppress(FileNotFoundError):
                total += int((thread / "schedstat").read_text().split()[0])
        return total / 1e3


def measure(servers, path, body, requests):
    times = {name: [] for name in servers}
    for turn in range(ROUNDS + 1):
        for name, server in servers.items():
            before = server.cpu_microseconds()
            for _ in range(requests):
                server.ask(path, body)
            if turn > 0:  # the first warms up
                times[name].append((server.cpu_microseconds() - before) / requests)
    medians = {name: statistics.median(each) for name, each in times.items()}
    for name, median in medians.items():
        print(f"{path:20} {name:10} {median:10.1f} us {median / medians['off']:6.3f}", flush=True)


def main():
    binary = os.path.abspath(sys.argv[1])
    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    endpoint = ["--otlp-endpoint", f"http://127.0.0.1:{collector.server_port}"]
    flags = {"off": [], "ratio 0.01": [*endpoint, "--trace-ratio", "0.01"], "ratio 1": endpoint}
    servers = {name: Server(binary, *more) for name, more in flags.items()}
    photo = (ROOT / "tests" / "golden" / "inputs" / "cat.jpg").read_bytes()
    measure(servers, "/health/live", None, 300)
    measure(servers, "/api/v1/classify", photo, 25)
    for server in servers.values():
        server.process.terminate()
        server.process.wait()


if __name__ == "__main__":
    main()
