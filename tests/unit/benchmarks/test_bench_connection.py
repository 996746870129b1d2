import pytest

from benchmarks.load.connection import decode, encode

ANSWER = b"HTTP/1.1 202 Accepted\r\nContent-Length: 5\r\n\r\nhello"


def test_a_request_carries_its_length_and_headers():
    request = encode("POST", "/p", "h", {"authorization": "Bearer x"}, b"{}")

    assert request == (
        b"POST /p HTTP/1.1\r\nhost: h\r\nauthorization: Bearer x\r\n"
        b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    )


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (ANSWER, (202, b"hello", b"")),
        (ANSWER + b"HTTP", (202, b"hello", b"HTTP")),
        (ANSWER[:-1], None),
        (ANSWER[:30], None),
        (b"", None),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", (204, b"", b"")),
    ],
)
def test_an_answer_is_split_off_once_it_is_whole(data, answer):
    assert decode(data) == answer


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_an_answer_whose_end_cannot_be_told_is_refused(data):
    with pytest.raises(ValueError):
        decode(data)
