"""Writes the screens of the documentation: commands in a terminal as SVG, and the sign-in page.

    DRAWBRIDGE_TOOLS=… screens.py BINARY FOLDER

BINARY is `drawbridge`, FOLDER where the screens are written. The mesh has the documented ports,
and no optional servers, so that a screen is the same at each run. The figures of `top` are those of
a sample.
"""

import fcntl
import html
import http.server
import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import termios
import threading
import time

import pyte

HERE = os.path.dirname(os.path.abspath(__file__))
# The mesh shows the folder in which it runs.
DEMO = "/tmp/drawbridge-screens/demo"
PATIENCE_SECONDS = 60
CELL_WIDTH, CELL_HEIGHT, FONT_SIZE = 8.4, 18, 14
COLORS = {
    "default": "#d8dee9", "black": "#3b4252", "red": "#e0606a", "green": "#8fbf7f",
    "brown": "#e5c07b", "blue": "#7aa2f7", "magenta": "#b48ead", "cyan": "#7fc8d8", "white": "#eceff4",
}
BACKGROUND = "#1e222a"


class Terminal:
    """A command in a terminal of this size."""

    def __init__(self, command, columns, lines, cwd):
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        pid, self.master = pty.fork()
        if pid == 0:
            os.chdir(cwd)
            os.environ["TERM"] = "xterm-256color"
            os.execvp(command[0], command)
        self.pid = pid
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def read(self, seconds):
        """Reads what the command writes for this long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            ready, _, _ = select.select([self.master], [], [], left)
            if not ready:
                return
            try:
                self.stream.feed(os.read(self.master, 65536))
            except OSError:
                return

    def wait_for(self, text):
        end = time.monotonic() + PATIENCE_SECONDS
        while not any(text in line for line in self.screen.display):
            if time.monotonic() > end:
                sys.exit(f"no {text!r} in\n" + "\n".join(self.screen.display))
            self.read(0.2)

    def stop(self):
        os.write(self.master, b"\x03")
        self.read(1)
        os.waitpid(self.pid, 0)
        os.close(self.master)


def style(cell):
    """The attributes of a cell in SVG: colors of the foreground and background, and weight."""
    front = COLORS.get(cell.fg, f"#{cell.fg}" if len(cell.fg) == 6 else COLORS["default"])
    back = None if cell.bg == "default" else COLORS.get(cell.bg, f"#{cell.bg}")
    if cell.reverse:
        front, back = BACKGROUND, front
    return front, back, cell.bold


def svg(screen, title):
    """The screen as SVG: a text for each run of cells with the same style."""
    lines = screen.lines
    while lines > 1 and not screen.display[lines - 1].strip():
        lines -= 1
    width, height = screen.columns * CELL_WIDTH + 24, lines * CELL_HEIGHT + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>',
        f'<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="{FONT_SIZE}">',
    ]
    for y in range(lines):
        row, x = screen.buffer[y], 0
        while x < screen.columns:
            start, look = x, style(row[x])
            while x < screen.columns and style(row[x]) == look:
                x += 1
            text = "".join(row[at].data for at in range(start, x))
            front, back, bold = look
            left, top, run = 12 + start * CELL_WIDTH, 12 + y * CELL_HEIGHT, (x - start) * CELL_WIDTH
            if back:
                parts.append(f'<rect x="{left:.1f}" y="{top}" width="{run:.1f}" height="{CELL_HEIGHT}" fill="{back}"/>')
            if text.strip():
                weight = ' font-weight="bold"' if bold else ""
                parts.append(
                    f'<text x="{left:.1f}" y="{top + 13}" textLength="{run:.1f}" fill="{front}"{weight}'
                    f' xml:space="preserve">{html.escape(text)}</text>'
                )
    return "\n".join(parts + ["</g>", "</svg>", ""])


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    print(f"wrote {path}")


class Sample(http.server.BaseHTTPRequestHandler):
    """Serves the metrics of a sample, whose counters grow with each scrape."""

    def do_GET(self):
        self.server.scrapes += 1
        text = sample(self.server.name, self.server.scrapes)
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


BOUNDS = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30]
# Per scrape: the tool, why it failed, how many calls, and their seconds.
CALLS = [
    ("code_search", "", 12, 0.008), ("code_search", "tool_error", 1, 0.03), ("code_list_files", "", 4, 0.003),
    ("invoices_search", "", 6, 0.015), ("invoices_approve", "policy_denied", 1, 0.0008),
    ("tickets_search", "", 9, 0.08), ("tickets_reply", "rate_limited", 2, 0.0004), ("tickets_reply", "", 3, 0.12),
]


def sample(name, scrapes):
    lines = ["drawbridge_ready 1", 'drawbridge_build_info{version="0.1.0",commit=""} 1']
    lines.append(f"process_resident_memory_bytes {(60 + 7 * len(name)) * 1024 * 1024}")
    if name != "edge":
        lines.append(f'rpc_server_call_duration_seconds_count{{rpc_method="x"}} {scrapes * 7}')
        if name in ("invoices", "tickets"):
            lines += ["credentials_sessions 3", "credentials_leases 5"]
        if name == "tickets":
            lines.append('drawbridge_dependency_up{dependency="helpdesk",effect="degrading"} 0')
        return "\n".join(lines) + "\n"
    lines += ["mcp_server_sessions 14", "mcp_server_streams 9", "edge_requests_running 3"]
    lines += ['edge_calls_running{service="code"} 2', 'edge_calls_waiting{service="tickets"} 4']
    histogram = "mcp_server_operation_duration_seconds"
    for tool, error, calls, seconds in CALLS:
        labels = f'mcp_method_name="tools/call",gen_ai_tool_name="{tool}",error_type="{error}"'
        count = calls * scrapes
        for bound in BOUNDS + ["+Inf"]:
            below = count if bound == "+Inf" or seconds <= bound else 0
            lines.append(f'{histogram}_bucket{{{labels},le="{bound}"}} {below}')
        lines.append(f"{histogram}_count{{{labels}}} {count}")
    return "\n".join(lines) + "\n"


def top(binary, folder):
    admin = []
    for name in ["edge", "auth", "code", "invoices", "tickets", "idp"]:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sample)
        server.name, server.scrapes = name, 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        admin += ["--admin", f"{name}=http://127.0.0.1:{server.server_port}"]
    terminal = Terminal([binary, "top", "--interval-ms", "500", *admin], 100, 24, "/tmp")
    terminal.wait_for("tickets_search")
    terminal.read(8)
    write(f"{folder}/top.svg", svg(terminal.screen, "drawbridge top"))
    terminal.stop()


def up(binary, folder):
    shutil.rmtree(os.path.dirname(DEMO), ignore_errors=True)
    os.makedirs(os.path.dirname(DEMO))
    subprocess.run([binary, "init", "demo"], cwd=os.path.dirname(DEMO), check=True, stdout=subprocess.DEVNULL)
    terminal = Terminal([binary, "up", "--embedded", "--ephemeral", "--log", "error"], 100, 60, DEMO)
    terminal.wait_for("Press Ctrl-C to stop.")
    write(f"{folder}/up.svg", svg(terminal.screen, "drawbridge up"))
    sign_in(folder)
    terminal.stop()


def sign_in(folder):
    browser = shutil.which("chromium") or sys.exit("chromium is missing; `tests/setup.sh test` installs it")
    script = os.path.join(HERE, "sign-in.mjs")
    path = f"{folder}/sign-in.png"
    subprocess.run(["node", script, browser, "http://127.0.0.1:7100", "http://127.0.0.1:7180/mcp", path], check=True)
    print(f"wrote {path}")


if __name__ == "__main__":
    binary, folder = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    os.makedirs(folder, exist_ok=True)
    state = "/tmp/drawbridge-screens-state"
    shutil.rmtree(state, ignore_errors=True)
    os.environ["DRAWBRIDGE_STATE_DIR"] = state
    top(binary, folder)
    up(binary, folder)
    shutil.rmtree(state, ignore_errors=True)
    shutil.rmtree(os.path.dirname(DEMO), ignore_errors=True)
