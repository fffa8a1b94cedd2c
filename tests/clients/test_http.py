"""HTTP clients that people use, unchanged, against the native API."""
import asyncio
import base64
import io
import json
import subprocess

import aiohttp
import httpx
import requests
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

CLASSIFY = "/api/v1/classify"


def best(answer):
    return answer["predictions"][0]["label"]


def test_curl_raw_multipart_and_json(server, cat, tmp_path):
    photo = tmp_path / "cat.jpg"
    photo.write_bytes(cat)
    document = tmp_path / "cat.json"
    document.write_text(json.dumps({"image": base64.b64encode(cat).decode()}))
    for arguments in (
        ["--data-binary", f"@{photo}"],
        ["-X", "POST", "-T", str(photo)],
        ["-F", f"image=@{photo}"],
        ["-H", "content-type: application/json", "-d", f"@{document}"],
    ):
        run = subprocess.run(["curl", "-sS", "--fail-with-body", *arguments, server + CLASSIFY], capture_output=True)
        assert run.returncode == 0, run.stdout + run.stderr
        assert best(json.loads(run.stdout)) == "cat", arguments


def test_curl_waits_for_continue_and_reads_the_refusal(server, tmp_path):
    huge = tmp_path / "huge.bin"
    huge.write_bytes(bytes(25 * 1024 * 1024))
    run = subprocess.run(["curl", "-sS", "--data-binary", f"@{huge}", server + CLASSIFY], capture_output=True)
    assert json.loads(run.stdout)["code"] == "body_too_large", run


def test_requests_with_a_session_and_several_files(server, cat):
    with requests.Session() as session:
        for _ in range(3):
            answer = session.post(server + CLASSIFY, params={"top_k": 2}, data=cat, timeout=30)
            assert answer.status_code == 200 and best(answer.json()) == "cat"
            assert len(answer.json()["predictions"]) == 2
        files = [("images", ("a.jpg", cat, "image/jpeg")), ("images", ("b.jpg", b"text", "image/jpeg"))]
        results = session.post(server + CLASSIFY, files=files, timeout=30).json()["results"]
        assert best(results[0]) == "cat" and results[1]["error"]["code"] == "not_an_image"


def test_requests_streaming_in_chunks(server, cat):
    pieces = (cat[at : at + 1000] for at in range(0, len(cat), 1000))
    answer = requests.post(server + CLASSIFY, data=pieces, timeout=30)
    assert answer.status_code == 200 and best(answer.json()) == "cat"


def test_httpx_and_the_problem_document(server):
    answer = httpx.post(server + CLASSIFY, content=b"not an image")
    assert answer.status_code == 415
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "not_an_image" and answer.headers["x-request-id"]


def test_aiohttp_with_many_at_once(server, cat):
    async def main():
        async with aiohttp.ClientSession() as session:

            async def one():
                async with session.post(server + CLASSIFY, data=cat) as answer:
                    assert answer.status == 200
                    return best(await answer.json())

            return await asyncio.gather(*(one() for _ in range(64)))

    assert set(asyncio.run(main())) == {"cat"}


def test_pillow_writes_what_residual_reads(server, cat):
    picture = Image.open(io.BytesIO(cat))
    for form, options in (("PNG", {}), ("WEBP", {"quality": 95}), ("BMP", {}), ("TIFF", {}), ("GIF", {}), ("JPEG", {"progressive": True})):
        buffer = io.BytesIO()
        picture.save(buffer, form, **options)
        answer = requests.post(server + CLASSIFY, data=buffer.getvalue(), timeout=30).json()
        assert answer["image"] == {"width": 451, "height": 300, "format": form.lower()}, answer
        assert best(answer) == "cat", form


def test_prometheus_parses_the_metrics(server):
    page = requests.get(server + "/metrics", timeout=30)
    families = {family.name: family for family in text_string_to_metric_families(page.text)}
    assert families["residual_stage_duration_seconds"].type == "histogram"
    assert families["residual_requests"].type == "counter"
    assert {"residual_queue_images", "residual_batch_images", "residual_model_info"} <= families.keys()
