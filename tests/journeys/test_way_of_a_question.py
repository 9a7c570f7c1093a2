"""A question from the student's request to the e-mail, through the real processes."""

import shutil
from collections import Counter
from pathlib import Path

import httpx

from tests.journeys.department import COURSE, PASSWORD, department, eventually


def test_question_asked_through_the_api_arrives_as_an_email_with_file_and_page(
    tmp_path: Path, course_index: Path
) -> None:
    with department(tmp_path, index=course_index) as uni:
        for service in ("api", "worker", "mailer"):
            uni.start(service)
        uni.wait_until_ready()
        with uni.student("ana") as ana, uni.student("luis") as luis:
            reply = ana.post(
                "/questions", json={"input": "¿Cuál es la tensión umbral de un diodo de silicio?"}
            )
            assert reply.status_code == 202
            number = reply.json()["id"]
            question = uni.answered(ana, number)
            assert any(
                source["file"] == "apuntes.pdf" and source["page"]
                for source in question["answer"]["sources"]
            )
            assert luis.get(f"/questions/{number}").status_code == 404
        (mail,) = uni.mails("ana@uni.test")
        assert mail["Auto-Submitted"] == "auto-replied"
        body = mail.get_body(("plain",))
        assert body is not None
        assert "apuntes.pdf" in body.get_content()
        assert uni.mails("luis@uni.test") == []


def test_forgotten_password_arrives_by_email_and_lets_in_once(
    tmp_path: Path, course_index: Path
) -> None:
    with department(tmp_path, index=course_index) as uni:
        uni.start("api")
        uni.start("mailer")
        uni.wait_until_ready()
        with uni.student("ana") as ana, httpx.Client(base_url=uni.api_url) as anyone:
            for address in ("ana@uni.test", "nobody@uni.test"):
                reply = anyone.post("/auth/forgot-password", json={"email": address})
                assert reply.status_code == 202
            mail = eventually(uni.mails, 30, "The e-mail")[0]
            assert "ana@uni.test" in mail["To"]
            body = mail.get_body(("plain",))
            assert body is not None
            words = body.get_content().split()
            assert ana.get("/questions").status_code == 200

            def login(password: str) -> httpx.Response:
                return anyone.post("/login", data={"username": "ana", "password": password})

            assert login(PASSWORD).status_code == 200
            temporary = next(
                reply.json()["access_token"]
                for word in words
                if len(word) == 14 and (reply := login(word)).status_code == 200
            )
            assert ana.get("/questions").status_code == 401
            headers = {"Authorization": f"Bearer {temporary}"}
            assert anyone.get("/questions", headers=headers).status_code == 403


def test_changed_and_deleted_documents_are_noticed_without_a_restart(tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "normas.md").write_text(
        "# Normas\n\nLa biblioteca del departamento abre de nueve a catorce horas.\n"
    )
    with department(tmp_path, documents=documents, RESCAN_SECONDS="0.5") as uni:
        for service in ("api", "worker", "mailer"):
            uni.start(service)
        uni.wait_until_ready()
        with uni.student("ana") as ana:

            def ask(text: str) -> dict[str, object]:
                number = ana.post("/questions", json={"input": text}).json()["id"]
                return uni.answered(ana, number)["answer"]  # type: ignore[no-any-return]

            def sources() -> list[str]:
                answer = ask("¿En qué aula es la tutoría de la profesora Quintana?")
                return [source["file"] for source in answer["sources"]]  # type: ignore[attr-defined]

            assert "tutorias.md" not in sources()
            (documents / "tutorias.md").write_text(
                "# Tutorías\n\nLa tutoría de la profesora Quintana es en el aula B-214.\n"
            )
            eventually(lambda: "tutorias.md" in sources(), 60, "The new document's use")
            (documents / "tutorias.md").unlink()
            eventually(lambda: "tutorias.md" not in sources(), 60, "The document's removal")


def test_killed_processes_lose_nothing_and_answer_nothing_twice(
    tmp_path: Path, course_index: Path
) -> None:
    questions = [f"¿Cuánto vale la tensión umbral del diodo? ({n})" for n in range(120)]
    with department(tmp_path, index=course_index, LEASE_SECONDS="5") as uni:
        for name, service in (
            ("api", "api"),
            ("worker-1", "worker"),
            ("worker-2", "worker"),
            ("mailer", "mailer"),
        ):
            uni.start(name, service)
        uni.wait_until_ready()
        accepted: list[int] = []
        with uni.student("ana") as ana:
            for index, text in enumerate(questions):
                if index in (40, 80):
                    uni.kill("api")
                    uni.start("api")
                    uni.wait_until_ready()
                if index in (30, 70):
                    uni.kill("worker-1")
                    uni.start("worker-1", "worker")
                if index in (50, 95):
                    uni.kill("mailer")
                    uni.start("mailer")
                reply = ana.post("/questions", json={"input": text})
                assert reply.status_code == 202
                accepted.append(reply.json()["id"])
            for number in accepted:
                uni.answered(ana, number, seconds=240)
        assert len(set(accepted)) == len(questions)
        copies: Counter[str] = Counter(mail["Message-ID"] for mail in uni.mails())
        assert len(copies) == len(questions)
        # Each of the two kills of the mailer can have left one e-mail in doubt.
        assert sum(copies.values()) <= len(questions) + 2


def test_documents_folder_that_is_moved_away_loses_no_question(
    tmp_path: Path, course_index: Path
) -> None:
    documents = tmp_path / "documents"
    shutil.copytree(COURSE, documents)
    with department(tmp_path, documents=documents, index=course_index, RESCAN_SECONDS="0.5") as uni:
        for service in ("api", "worker", "mailer"):
            uni.start(service)
        uni.wait_until_ready()
        with uni.student("ana") as ana:
            for _ in range(2):
                number = ana.post("/questions", json={"input": "¿Qué es un diodo?"}).json()["id"]
                question = uni.answered(ana, number)
                assert question["answer"]["sources"]
                if documents.exists():
                    documents.rename(tmp_path / "elsewhere")
