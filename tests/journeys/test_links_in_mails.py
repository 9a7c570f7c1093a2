"""The links in e-mails, clicked in the mailbox page: an address confirmed, an answer rated."""

from pathlib import Path

import httpx
from playwright.sync_api import Page, expect

from tests.journeys.department import department, eventually
from tests.journeys.test_swagger import browser_page


def click_in_mail(page: Page, mailbox: str, subject: str, link: str) -> Page:
    """Open the mail in the mailbox page and follow one of its links, which opens a new page."""
    page.goto(mailbox)
    page.get_by_text(subject).first.click()
    with page.context.expect_page() as opened:
        page.frame_locator("iframe").get_by_role("link", name=link, exact=True).click()
    opened.value.wait_for_load_state()
    return opened.value


def test_student_confirms_asks_and_says_that_the_staff_should_answer(
    tmp_path: Path, course_index: Path
) -> None:
    with department(
        tmp_path,
        index=course_index,
        REQUIRE_CONFIRMED_EMAIL="true",
        STAFF_EMAIL="staff@uni.test",
        SMTP_TIMEOUT="30",
    ) as uni:
        for service in ("api", "worker", "mailer"):
            uni.start(service)
        uni.wait_until_ready()
        mailbox = uni.mailbox_url

        def arrived(recipient: str, subject: str) -> bool:
            entries = httpx.get(f"{mailbox}/messages.json", params={"to": recipient}).json()
            return any(subject in entry["subject"] for entry in entries)

        question = {"input": "¿Qué es un diodo?"}
        with uni.student("ana") as ana, browser_page() as page:
            assert ana.post("/questions", json=question).status_code == 403
            eventually(lambda: arrived("ana@", "Confirma"), 30, "The confirmation")
            opened = click_in_mail(page, mailbox, "Confirma tu", "Confirmar mi dirección")
            opened.get_by_role("button", name="Confirm my address").click()
            expect(opened.locator("h1")).to_have_text("Address confirmed")
            opened.close()

            reply = ana.post("/questions", json=question)
            assert reply.status_code == 202
            number = reply.json()["id"]
            uni.answered(ana, number)
            eventually(lambda: arrived("ana@", f"pregunta {number}"), 30, "The answer")
            opened = click_in_mail(page, mailbox, f"pregunta {number}", "Preguntar al profesorado")
            opened.get_by_role("button", name="Preguntar al profesorado").click()
            expect(opened.locator("main")).to_contain_text("se ha enviado al profesorado")
        eventually(lambda: arrived("staff@", "para el profesorado"), 30, "The mail to the staff")
        [mail] = uni.mails("staff@uni.test")
        assert mail["Reply-To"] == "ana@uni.test"
