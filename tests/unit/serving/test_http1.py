"""The HTTP server on real sockets: what it answers, and what it lets no client hold."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback_server import Answer, Client, LoopbackServer, wait_until

from serving.http1 import Limits

MEBIBYTE = 1 << 20
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF_A_HEAD = b"GET / HTTP/1.1\r\nHost: loc"


class App:
    """An ASGI application whose answer is chosen by the path.

    Attributes:
      seen: method and path of each request.
      may_answer: what `/wait` waits for.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.may_answer = threading.Event()

    async def __call__(self, scope, receive, send) -> None:
        self.seen.append((scope["method"], scope["path"]))
        body = (await receive())["body"]
        if scope["path"] == "/fail":
            raise ValueError("a defect of the application")
        if scope["path"] == "/waits-for-the-end":
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(receive(), 0.1)
                body = b"the connection ended"
        if scope["path"] == "/wait":
            await asyncio.to_thread(self.may_answer.wait, 60)
        if scope["path"].startswith("/size/"):
            body = bytes(int(scope["path"].removeprefix("/size/")))
        headers = [(b"content-type", b"application/octet-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        half = len(body) // 2
        await send({"type": "http.response.body", "body": body[:half], "more_body": True})
        await send({"type": "http.response.body", "body": body[half:]})

    def count(self, path: str) -> int:
        return sum(each == path for _, each in list(self.seen))


@pytest.fixture
def app() -> Iterator[App]:
    made = App()
    yield made
    made.may_answer.set()


@pytest.fixture
def serve(app) -> Iterator[Callable[..., LoopbackServer]]:
    """A function that starts a server with other limits."""
    with contextlib.ExitStack() as stack:
        yield lambda **limits: stack.enter_context(LoopbackServer(app, Limits(**limits)))
        app.may_answer.set()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def post(body: bytes, *headers: str, path: str = "/", declared: int | None = None) -> bytes:
    size = len(body) if declared is None else declared
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {size}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def post_chunks(*chunks: bytes, path: str = "/") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    parts = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b"")]
    return head.encode() + b"".join(parts)


def require_refusal(client: Client, status: int) -> Answer:
    """The answer is a JSON error, and the connection ends with it."""
    answer = client.answer()
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["connection"] == "close"
    assert answer.body.startswith(b'{"error": "')
    assert client.rest() == b""
    return answer


# What is answered.


def test_a_connection_answers_one_request_after_the_other(serve, app):
    with serve().client() as client:
        for body in (b"first", b"", b"third"):
            client.send(post(body))
            answer = client.answer()
            assert (answer.status, answer.body) == (200, body)
            assert "connection" not in answer.headers
            assert answer.headers["date"].endswith(" GMT")
    assert app.seen == [("POST", "/")] * 3


def test_an_application_that_waits_for_the_end_of_a_connection_is_left_waiting(serve):
    """As Starlette does beside sending a file."""
    with serve().client() as client:
        client.send(post(b"whole", path="/waits-for-the-end"))
        assert client.answer().body == b"whole"


def test_pipelined_requests_are_answered_in_their_order(serve):
    bodies = [f"body {number}".encode() for number in range(50)]
    with serve().client() as client:
        client.send(b"".join(map(post, bodies)))
        assert [client.answer().body for _ in bodies] == bodies


def test_few_requests_that_were_sent_ahead_are_answered_at_once(serve, app):
    server = serve()
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(server.client()).send(get("/") + get("/wait"))
        wait_until(lambda: app.count("/wait") == 8)
        with server.client() as other:
            other.send(GET)
            assert other.answer().status == 200
        assert app.count("/wait") == 8
        app.may_answer.set()
        wait_until(lambda: app.count("/wait") == 20)


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.0\r\n\r\n", GET[:-2] + b"Connection: close\r\n\r\n"]
)
def test_a_connection_that_is_for_one_request_ends_after_it(serve, head):
    with serve().client() as client:
        client.send(head)
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.rest() == b""


def test_head_is_answered_as_get_without_its_body(serve, app):
    with serve().client() as client:
        client.send(get("/size/12345").replace(b"GET", b"HEAD"))
        answer = client.answer(to_head=True)
        assert (answer.status, answer.headers["content-length"]) == (200, "12345")
        client.send(get("/size/7"))
        assert len(client.answer().body) == 7
    assert app.seen == [("GET", "/size/12345"), ("GET", "/size/7")]


@pytest.mark.parametrize(
    ("request_bytes", "size"),
    [
        (GET, 0),
        (get(f"/size/{3 * MEBIBYTE}"), 3 * MEBIBYTE),
        (post(bytes(MEBIBYTE)), MEBIBYTE),
        (post_chunks(bytes(1000), bytes(234)), 1234),
    ],
)
def test_a_client_that_ends_its_sending_gets_its_whole_answer(serve, request_bytes, size):
    with serve().client() as client:
        client.send(request_bytes)
        client.end_sending()
        answer = client.answer()
        assert (answer.status, len(answer.body)) == (200, size)
        assert client.rest() == b""


def test_a_body_in_chunks_is_one_body(serve):
    with serve().client() as client:
        client.send(post_chunks(b"one, ", b"two, ", bytes(100_000), b"three") * 2)
        for _ in range(2):
            assert client.answer().body == b"one, two, " + bytes(100_000) + b"three"


def test_a_client_that_expects_100_is_told_to_go_on(serve, app):
    request = post(b"the body", "Expect: 100-continue")
    head, body = request[: -len(b"the body")], b"the body"
    with serve().client() as client:
        client.send(head)
        assert client.answer().status == 100
        client.send(body)
        assert client.answer().body == body


def test_a_client_that_expects_100_is_refused_before_it_sends_a_long_body(serve, app):
    with serve(body_bytes=1000).client() as client:
        client.send(post(b"", "Expect: 100-continue", declared=1001))
        require_refusal(client, 413)
    assert app.seen == []


def test_a_path_is_decoded_and_the_query_is_apart(serve, app):
    with serve().client() as client:
        client.send(get("/%C3%A9%20%ff?a=/b%20c"))
        assert client.answer().status == 200
    assert app.seen == [("GET", "/é \ufffd")]


@settings(max_examples=60, deadline=None)
@given(
    request=st.sampled_from([GET, post(b"some bytes" * 5), post_chunks(b"some ", b"bytes" * 9)]),
    data=st.data(),
)
def test_the_pieces_in_which_a_request_comes_do_not_matter(shared_server, request, data):
    cuts = data.draw(st.lists(st.integers(1, len(request) - 1), max_size=12, unique=True))
    with shared_server.client() as client:
        client.send(request)
        whole = client.answer()
        for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), None], strict=True):
            client.send(request[start:stop])
            time.sleep(0.001)  # so that the pieces arrive as pieces
        split = client.answer()
    assert (split.status, split.body) == (whole.status, whole.body)


def test_a_body_may_come_in_more_pieces_than_chunks_are_allowed(serve):
    server, body = serve(), bytes(8200)
    with server.client() as client:
        client.send(post(b"", declared=len(body)))
        for place in range(len(body)):
            client.send(body[place : place + 1])
            assert server.arriving_bytes <= place + 1  # the server's loop has had a turn
        assert client.answer().body == body


# What is refused.


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nBad header: b\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (post(b"", "Content-Length: 5"), 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1e3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 20 + b"\r\n\r\n", 413),
        (post(b"abc", "Transfer-Encoding: chunked"), 400),
        (post(b"abc", "Content-Encoding: gzip"), 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (post_chunks(b"abc").replace(b"3\r\n", b"three\r\n"), 400),
        (post_chunks(b"abc").replace(b"3\r\n", b"2\r\n"), 400),
        (post_chunks(b"abc").replace(b"3\r\n", b"-3\r\n"), 400),
        (get("/" + "x" * 70_000), 431),
        (GET[:-2] + b"X: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (GET[:-2] + b"X: x\r\n" * 12_000 + b"\r\n", 431),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(serve, app, request_bytes, status):
    server = serve()
    with server.client() as client:
        client.send(request_bytes)
        require_refusal(client, status)
    assert server.refused == [status]
    assert app.seen == []


def test_a_body_of_too_many_chunks_is_refused(serve, app):
    with serve().client() as client:
        with contextlib.suppress(ConnectionError):
            client.send(post_chunks(*[b"x"] * 8193))
        require_refusal(client, 400)
    assert app.seen == []


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_over_the_limit_is_refused_readably_while_the_client_goes_on_sending(
    serve, app, is_chunked
):
    body = bytes(8 * MEBIBYTE)
    request = post_chunks(*[body[:100_000]] * 80) if is_chunked else post(body)
    with serve(body_bytes=200_000).client() as client:
        sending = threading.Thread(target=client.send, args=[request])
        sending.start()
        answer = client.answer()
        sending.join()
        client.end_sending()
        assert (answer.status, client.rest()) == (413, b"")
    assert app.seen == []


def test_a_body_of_the_longest_size_is_taken(serve):
    with serve(body_bytes=1000).client() as client:
        for request in (post(bytes(1000)), post_chunks(bytes(500), bytes(500))):
            client.send(request)
            assert len(client.answer().body) == 1000


def test_a_body_that_dribbles_is_refused(serve, app):
    with serve(seconds=0.3).client() as client:
        client.send(post(b"", declared=10_000))
        sending = threading.Thread(target=client.dribble, args=[b"x"])
        sending.start()
        require_refusal(client, 408)
        sending.join()
    assert app.seen == []


def test_a_head_that_dribbles_is_not_waited_for(serve, app):
    server = serve(idle_seconds=0.3)
    with server.client() as client:
        client.send(HALF_A_HEAD)
        client.dribble(b"x")
        wait_until(lambda: server.count_open() == 0)
    assert app.seen == []


def test_a_client_that_goes_amid_its_request_is_no_defect(serve, app, caplog):
    server = serve()
    for request in (HALF_A_HEAD, post(b"abc", declared=10), post_chunks(b"abc")[:-5], GET, b""):
        with server.client() as client:
            client.send(request)
    wait_until(lambda: server.count_open() == 0)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert app.seen == [("GET", "/")]


@pytest.fixture(scope="module")
def shared_server() -> Iterator[LoopbackServer]:
    """For properties: its application is not looked at."""
    with LoopbackServer(App(), Limits(connections=64)) as server:
        yield server


VALID = st.sampled_from([GET, HALF_A_HEAD, post(b"ab"), post_chunks(b"ab", b"cd"), b"\r\n"])


@st.composite
def damaged_requests(draw) -> bytes:
    content = bytearray(b"".join(draw(st.lists(VALID, min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(content)))
        content[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(content)


@settings(max_examples=150, deadline=None)
@given(content=damaged_requests() | st.binary(max_size=300))
def test_whatever_comes_is_answered_or_refused(shared_server, content):
    with shared_server.client() as client:
        client.send(content)
        client.end_sending()
        while True:
            try:
                answer = client.answer(to_head=content.startswith(b"HEAD"))
            except EOFError:
                break
            # RFC 9112 and 9110 ask for 501 and 505 where coding or version is not known.
            assert answer.status in {100, 200, 400, 408, 413, 431, 501, 505}
    assert shared_server.defects == []


# What clients hold.


def keep_waiting_idle(client: Client) -> None:
    """Sends nothing."""


def keep_waiting_after_an_answer(client: Client) -> None:
    client.send(GET)
    assert client.answer().status == 200


def keep_waiting_for_a_head(client: Client) -> None:
    client.send(HALF_A_HEAD)


def keep_waiting_for_a_body(client: Client) -> None:
    client.send(post(b"abc", declared=10))


def keep_waiting_with_an_answer(client: Client) -> None:
    client.send(get(f"/size/{16 * MEBIBYTE}"))
    # A byte of the answer is taken, so it has begun.
    assert client.socket.recv(1) == b"H"


KEEPERS = [
    keep_waiting_idle,
    keep_waiting_after_an_answer,
    keep_waiting_for_a_head,
    keep_waiting_for_a_body,
    keep_waiting_with_an_answer,
]


@pytest.mark.parametrize("first", range(len(KEEPERS)))
def test_one_connection_more_closes_the_one_that_waits_longest(serve, app, first):
    server = serve(connections=6)
    with contextlib.ExitStack() as stack:
        answered = stack.enter_context(server.client())
        answered.send(get("/wait"))
        wait_until(lambda: app.count("/wait") == 1)
        waiting = []
        for keep_waiting in KEEPERS[first:] + KEEPERS[:first]:
            waiting.append(stack.enter_context(server.client(receive_buffer=4096)))
            keep_waiting(waiting[-1])
        newer = []
        for client in waiting:
            newer.append(stack.enter_context(server.client()))
            newer[-1].send(GET)
            assert newer[-1].answer().status == 200
            assert client.is_dropped()
            assert server.count_open() == 6
        app.may_answer.set()
        assert answered.answer().status == 200
        for client in newer:
            client.send(GET)
            assert client.answer().status == 200


def test_where_every_connection_is_being_answered_the_new_one_is_closed(serve, app):
    server = serve(connections=3)
    with contextlib.ExitStack() as stack:
        answered = [stack.enter_context(server.client()) for _ in range(3)]
        for client in answered:
            client.send(get("/wait"))
        wait_until(lambda: app.count("/wait") == 3)
        with server.client() as refused:
            assert refused.is_dropped()
        app.may_answer.set()
        assert [client.answer().status for client in answered] == [200] * 3


def test_answers_that_are_not_taken_have_a_bound_and_the_slowest_reader_goes_first(serve, app):
    size = 16 * MEBIBYTE
    server = serve(unread_bytes=40 * MEBIBYTE)
    with contextlib.ExitStack() as stack:
        clients = []
        for number in range(1, 5):
            clients.append(stack.enter_context(server.client(receive_buffer=4096)))
            clients[-1].send(get(f"/size/{size}"))
            wait_until(lambda number=number: app.count(f"/size/{size}") == number)
        # Two answers fit: the third and the fourth drop one reader each, and no more.
        wait_until(lambda: server.count_open() == 2)
        assert [client.is_dropped() for client in clients] == [True, True, False, False]


def test_a_client_that_takes_nothing_is_dropped_and_one_that_reads_is_not(serve):
    size = 16 * MEBIBYTE
    server = serve(seconds=1)
    with server.client(4096) as deaf, server.client(receive_buffer=100_000) as slow:
        for client in (deaf, slow):
            client.send(get(f"/size/{size}"))
        taken = 0
        while taken <= size:  # which leaves out the head
            piece = slow.socket.recv(200_000)
            assert piece
            taken += len(piece)
            time.sleep(0.02)
        wait_until(lambda: server.count_open() == 1)
        assert deaf.is_dropped()


def test_a_client_that_leaves_the_end_of_an_answer_is_dropped(serve, app):
    """The last bytes of an answer wait in the server's buffer, where no request does."""
    server = serve(seconds=0.3, idle_seconds=0.3)
    with server.client(receive_buffer=4096) as deaf:
        fill_buffers(deaf, get("/size/60000"))
        wait_until(lambda: server.count_open() == 0)


def test_requests_that_come_without_reading_the_answers_have_a_bound(serve, app):
    server = serve(seconds=60)
    with server.client(receive_buffer=4096) as deaf:
        sent = fill_buffers(deaf, get("/size/200000"))
        assert sent < 8 * MEBIBYTE
        assert app.count("/size/200000") < 100


def fill_buffers(client: Client, request: bytes) -> int:
    """Sends requests until nothing more is taken; returns how many bytes were."""
    many, sent, idle = memoryview(request * 1000), 0, 0
    client.socket.setblocking(False)
    while idle < 20:
        try:
            sent += client.socket.send(many[sent % len(request) :])
            idle = 0
        except BlockingIOError:
            idle += 1
            time.sleep(0.02)
        except ConnectionError:
            break
    client.socket.setblocking(True)
    return sent


def test_long_bodies_that_arrive_have_a_bound_together_and_short_ones_pass(serve, app):
    server = serve(arriving_bytes=500_000, body_bytes=MEBIBYTE)
    with server.client() as first, server.client() as second, server.client() as short:
        first.send(post(bytes(200_000), declared=400_000))
        wait_until(lambda: server.arriving_bytes == 200_000)
        second.send(post(bytes(350_000), declared=400_000))
        answer = require_refusal(second, 503)
        assert int(answer.headers["retry-after"]) > 0
        wait_until(lambda: server.arriving_bytes == 200_000)
        short.send(post(bytes(60_000)))
        assert len(short.answer().body) == 60_000
        first.send(bytes(200_000))
        assert len(first.answer().body) == 400_000
    assert server.arriving_bytes == 0
    assert server.refused == [503]


def test_a_long_body_is_refused_at_its_head_where_there_is_no_room(serve):
    server = serve(arriving_bytes=0, body_bytes=MEBIBYTE)
    with server.client() as first, server.client() as second:
        first.send(post(b"a", declared=2))
        wait_until(lambda: server.arriving_bytes == 1)
        second.send(post(b"", declared=100_000))
        require_refusal(second, 503)


def test_a_defect_of_the_application_is_logged_and_hurts_nobody_else(serve, caplog):
    server = serve()
    with server.client() as client, server.client() as other:
        client.send(get("/fail"))
        assert client.answer().status == 500
        for each in (client, other):
            each.send(GET)
            assert each.answer().status == 200
    [record] = [each for each in caplog.records if each.name == "serving.http1"]
    assert record.exc_info[0] is ValueError


# How it stops.


def test_stopping_closes_idle_connections_and_answers_what_has_begun(serve, app):
    server = serve()
    with contextlib.ExitStack() as stack:
        idle, asking, arriving = [stack.enter_context(server.client()) for _ in range(3)]
        idle.send(GET)
        assert idle.answer().status == 200
        asking.send(get("/wait"))
        wait_until(lambda: app.count("/wait") == 1)
        arriving.send(post(b"abc", declared=6))
        wait_until(lambda: server.arriving_bytes == 3)
        stopped = server.begin_to_stop(30)
        assert idle.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        arriving.send(b"def")
        answer = arriving.answer()
        assert (answer.body, answer.headers["connection"]) == (b"abcdef", "close")
        assert arriving.rest() == b""
        assert not stopped.done()
        app.may_answer.set()
        answer = asking.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert asking.rest() == b""
        stopped.result(20)
    assert server.count_open() == 0


def test_stopping_answers_a_request_that_came_together_with_another(serve, app):
    server = serve()
    with server.client() as client:
        client.send(GET + get("/wait"))
        wait_until(lambda: app.count("/wait") == 1)
        stopped = server.begin_to_stop(30)
        app.may_answer.set()
        assert [client.answer().status for _ in range(2)] == [200, 200]
        client.close()
        stopped.result(20)


@pytest.mark.parametrize("count", range(1, 6))
def test_stopping_loses_no_end_of_an_answer(serve, app, count):
    """What the system's buffers do not hold is in the server's, though the request is answered."""
    server = serve()
    with server.client(receive_buffer=4096) as slow:
        for number in range(count):
            slow.send(get("/size/60000"))
            wait_until(lambda number=number: app.count("/size/60000") > number)
        stopped = server.begin_to_stop(30)
        for _ in range(count):
            assert len(slow.answer().body) == 60_000
        slow.close()
        stopped.result(20)


def test_stopping_ends_in_its_time_whatever_clients_do(serve, app):
    server = serve()
    with contextlib.ExitStack() as stack:
        dribbling, deaf, half = [
            stack.enter_context(server.client(receive_buffer=4096)) for _ in range(3)
        ]
        half.send(HALF_A_HEAD)
        dribbling.send(post(b"abc", declared=10_000))
        deaf.send(get(f"/size/{16 * MEBIBYTE}"))
        wait_until(lambda: server.arriving_bytes == 3)
        wait_until(lambda: app.count(f"/size/{16 * MEBIBYTE}") == 1)
        sending = threading.Thread(target=dribbling.dribble, args=[b"x"])
        sending.start()
        server.stop(0.3)
        wait_until(lambda: server.count_open() == 0)
        sending.join()
