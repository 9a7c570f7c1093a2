"""E-mails of every kind become the student's own words, or nothing; none of them is an error."""

import base64
import time
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailer.html_text import html_to_text
from mailer.incoming import (
    BODY_LIMIT,
    TAIL_LIMIT,
    IncomingMail,
    SubjectCode,
    own_reference,
    question_text,
    read_mail,
)
from mailer.new_text import is_courtesy, new_text

CODE = SubjectCode("CONSULTA")
PARENT = b"In-Reply-To: <question-3.0123456789abcdef@uni.test>\r\n"


def raw(body: bytes | str, headers: bytes = b"", kind: str = "text/plain; charset=utf-8") -> bytes:
    body = body.encode() if isinstance(body, str) else body
    return (
        b"From: Ana <ana@uni.test>\r\nSubject: CONSULTA\r\nMessage-ID: <a@uni.test>\r\n"
        + headers
        + f"MIME-Version: 1.0\r\nContent-Type: {kind}\r\n\r\n".encode()
        + body
    )


def header(name: str, value: str) -> IncomingMail:
    return read_mail(raw("¿Sí?", f"{name}: {value}\r\n".encode()))


QUESTION = "¿Qué es la tensión de corte?"
HISTORY = [
    "El lun, 5 oct 2026 a las 10:00, Curso (<consultas@uni.test>) escribió:\n\n> Hola\n> adiós",
    "El lun, 5 oct 2026 a las 10:00, Electrónica\nAnalógica (<consultas@uni.test>)\nescribió:\n> x",
    "On Mon, Oct 5, 2026 at 10:00 AM Course <consultas@uni.test> wrote:\n> Hello\n>> there",
    "On Mon, Oct 5, 2026 at 10:00 AM A Very Long Course Name <consultas@uni.test>\nwrote:\n\n> x",
    "El 5/10/26 a las 10:00, Curso escribió:\n> x",
    "On Mon, 5 Oct 2026, 10:00 Curso, <\nconsultas@uni.test> wrote:\n\n> x",
    "2026-10-05 10:00 GMT+02:00 Curso <consultas@uni.test>:\n\n> x",
    "Curso <consultas@uni.test> escribió el lun, 5 oct 2026:\n> x",
    (
        "De: Curso <consultas@uni.test>\nEnviado: lunes, 5 de octubre de 2026 10:00\n"
        "Para: Ana\nAsunto: RE: Consulta\n\nHola, esto es viejo."
    ),
    (
        "________________________________\nFrom: Course <consultas@uni.test>\n"
        "Sent: Monday, October 5, 2026 10:00\nTo: Ana\nSubject: RE: Consulta\n\nOld text."
    ),
    "*De:* Curso\n*Enviado el:* lunes\n*Para:* Ana\n*Asunto:* x\n\nViejo.",
    "-----Mensaje original-----\nDe: Curso\nViejo",
    "-------- Original Message --------\nViejo",
    "---------- Forwarded message ---------\nViejo",
    "El lun, 5 oct 2026 a las 10:00, Curso <c@uni.test> escribió:\n\nTexto viejo sin marcas.",
    "> El 5 oct 2026, a las 10:00, Curso <c@uni.test> escribió:\n>\n> Como lo cita Apple Mail.",
    "On Mon, Oct 5, 2026 at 10:00\u202fAM Course <c@uni.test> wrote:\n> x",
    "    En lunes, 5 de octubre de 2026, 10:00:00 CEST, Curso <c@uni.test> escribió:  \n  \n > x",
    "Missatge de Curs <c@uni.test> del dia dl., 5 d’oct. 2026 a les\n10:00:\n\n> x",
    "O luns, 5 de out. de 2026 ás 10:00, Curso (<c@uni.test>) escribiu:\n> x",
    "Hau idatzi du Ikastaroa (c@uni.test) erabiltzaileak (2026 urr. 5, al.\n(10:00)):\n\n> x",
    "Am Mo., 5. Okt. 2026 um 10:00 Uhr schrieb Kurs <c@uni.test>:\n> x",
    '05.10.2026, 10:00, "Curso" <c@uni.test>:\n> x',
    "Citando Curso <c@uni.test>:\n\n> x",
    "Von: Kurs <c@uni.test>\nGesendet: Montag, 5. Oktober 2026 10:00\nAn: Ana\nBetreff: x\n\nAlt",
    "De : Cours <c@uni.test>\nEnvoyé : lundi 5 octobre 2026\nÀ : Ana\nObjet : RE: x\n\nVieux",
    'De: "Curso" <c@uni.test>\nPara: Ana\nEnviados: Lunes, 5 de Octubre 2026\nAsunto: x\n\nV',
    "> De: Curso <c@uni.test>\n> Enviado: lunes, 5 de octubre\n> Para: Ana\n> Asunto: x\n> V",
    "-----Ursprüngliche Nachricht-----\nVon: Kurs\nAlt",
    "-----Message d'origine-----\nDe : Cours\nVieux",
]
ENDINGS = [
    "-- \nAna García\nGrado en Física\nTel. 600",
    "--\nAna García",
    "Enviado desde mi iPhone",
    "Enviado desde Outlook para Android",
    "Sent from my Galaxy",
    "Get Outlook for iOS",
    "Un saludo,\nAna",
    "Muchas gracias de antemano.\n\nUn saludo,\n\nAna García López",
    "Saludos",
    "Thanks in advance,\nAna",
    "Best regards\nAna García",
    (
        "AVISO LEGAL: Este mensaje y sus adjuntos se dirigen exclusivamente a su destinatario y "
        "pueden contener\ninformación confidencial.\n\nOtro párrafo en inglés."
    ),
    (
        "Este correo electrónico contiene información confidencial y está dirigido exclusivamente "
        "a su destinatario."
    ),
    "This e-mail and any attachments are confidential and intended solely for the addressee.",
    "CONFIDENTIALITY NOTICE: this is private.",
    "Antes de imprimir este correo, piensa en el medio ambiente.",
    "Libre de virus. www.avast.com",
    "<https://www.avast.com/sig-email?utm_medium=email> Libre de virus.www.avast.com",
    "El software de Avast ha analizado este correo electrónico en busca de virus.\nwww.avast.com",
    "Enviado desde un dispositivo móvil",
    "Obtener Outlook para Android<https://aka.ms/AAb9ysg>",
    "Sent from Mail<https://go.microsoft.com/fwlink/?LinkId=550986> for Windows",
    "[Enviado desde Yahoo Mail para iPhone](https://mail.onelink.me/1)",
    "Enviado con [Proton Mail](https://proton.me/)",
    "Gesendet von Outlook für Android",
    "[cid:image001.png@01DA0000.ABCD0000]",
    "[Logo Universidad]<https://www.uni.test>",
    "Muchísimas gracias,\nAna",
    "Un saludo.\nAna García - 2.º B",
    "Un saludo, Ana de la Torre",
    "gracias, ana",
    "Muchas gracias por su tiempo y un saludo,\nAna García\nGrupo B",
    "Many thanks,\n\nAna García (2nd year)",
    "Quedo a la espera de su respuesta.\nUn saludo,\nAna",
    "Espero su respuesta. Un saludo",
    "Looking forward to your reply.\nYours sincerely,\nAna García",
    "INFORMACIÓN BÁSICA SOBRE PROTECCIÓN DE DATOS. Responsable: Universidad. Derechos: acceso.",
    "P Antes de imprimir piense en su responsabilidad con el medio ambiente.",
    "🌳 Por favor, no imprima este correo si no es necesario.",
]
BANNERS = [
    "CAUTION: This email originated from outside of the organization. Do not click links.",
    "[EXTERNAL EMAIL] Do not click links unless you recognise the sender.",
    "*** Correo externo: no abra enlaces de remitentes desconocidos ***",
    (
        "[No suele recibir correo electrónico de ana@uni.test. Descubra por qué es importante en "
        "https://aka.ms/LearnAboutSenderIdentification ]"
    ),
    "You don't often get email from ana@uni.test. Learn why this is important<https://aka.ms/x?y>",
]


@pytest.mark.parametrize("history", HISTORY)
@pytest.mark.parametrize("is_reply", [True, False])
def test_history_below_the_text_is_cut(history: str, is_reply: bool) -> None:
    assert new_text(f"{QUESTION}\n\n{history}\n", is_reply=is_reply) == QUESTION


@pytest.mark.parametrize("ending", ENDINGS)
def test_signatures_and_disclaimers_are_cut(ending: str) -> None:
    assert new_text(f"{QUESTION}\n\n{ending}\n", is_reply=False) == QUESTION
    both = f"{QUESTION}\n\n{ending}\n\n{HISTORY[0]}"
    assert new_text(both, is_reply=True) == QUESTION


def test_line_before_a_folded_attribution_stays() -> None:
    text = "El examen, ¿cuándo es?\nOn Mon, 5 Oct 2026, 10:00 Curso, <\nc@uni.test> wrote:\n> x"
    assert new_text(text, is_reply=True) == "El examen, ¿cuándo es?"


def test_text_below_and_between_quotations_stays() -> None:
    bottom = f"{HISTORY[0]}\n\n{QUESTION}\n\n-- \nAna"
    assert new_text(bottom, is_reply=True) == QUESTION
    between = "On 5/10/26 at 10:00, x@uni.test wrote:\n> uno\n¿Por qué uno?\n> dos\n¿Por qué dos?"
    assert new_text(between, is_reply=True) == "¿Por qué uno?\n¿Por qué dos?"
    assert new_text(f"> viejo\n\n{QUESTION}", is_reply=True) == QUESTION


@pytest.mark.parametrize(
    "text",
    [
        "¿Qué imprime esto?\n> x <- 3\n> print(x)\n¿Y por qué?",
        "Tengo dudas de:\n- la práctica 1\n- la práctica 2\n-- y la 3\n\n¿Entran?",
        "¿Qué significa esta línea?\n\n----------\n\nV = I R",
        "On page 14 (2019) Sedra wrote:\nthe gain is infinite. Why?",
        "El profesor escribió:\nV = I R\n¿Por qué?",
        "De: dónde sale la fórmula no lo entiendo.\n¿Me lo explicas?",
        "Gracias por la respuesta. Tengo otra duda:\n¿por qué es negativa?",
        "Hola, gracias,\n¿qué entra en el examen del 3 de diciembre de 2026 a las 10:00?",
        "¿Qué debe decir el aviso legal de un correo confidencial para su destinatario?",
        "Un saludo a todos. ¿Qué es un JFET?",
        "Explícame la ley de Ohm.\nGracias\nExplica también la de Kirchhoff y la de Gauss",
        "Explícame la ley de Ohm.\n\nGracias,\nAna\n\nPD: y la de Kirchhoff",
        "SELECT 1\n--\nSELECT 2\n¿Qué devuelve?",
        "No sé qué pasa con el paquete TCP\nenviado desde el servidor al cliente\nsin su ACK.",
        (
            "El tema 3 habla de mensajes confidenciales cifrados para su destinatario; explica "
            "cómo se firma un mensaje."
        ),
        "From: what page does it go\nTo: what page\nDate: when is it due",
        "De: 3 a 5 V\nPara: 1 kHz\nA: temperatura ambiente\nCalcula la ganancia",
        "De: Ana, de 2.º B\nPara: el profesor\nAsunto: examen del día 3\n\nQué entra",
        "Explícame la ley de Ohm\nGracias, y la de Gauss",
        "Qué es un JFET\nGracias, y cuándo hay examen",
        "Sent with TCP, does a packet arrive in order\nand without loss",
        "El examen del día 3 a las 10:00 lo pone (profe@uni.test):\n¿qué entra?",
        "De la ley de Gauss no entiendo esto:\nlas líneas (ver p. 12) salen\n¿Por qué?",
        ">>> x = 1\n>>> x\n1\n¿Por qué?",
    ],
)
def test_new_question_loses_no_text(text: str) -> None:
    assert new_text(text, is_reply=False) == text


def test_prompts_of_python_in_a_reply_stay() -> None:
    text = ">>> x = 1\n>>> x\n¿Por qué?"
    assert new_text(text, is_reply=True) == text


@pytest.mark.parametrize("banner", BANNERS)
def test_warning_at_the_top_is_cut_and_the_text_below_stays(banner: str) -> None:
    assert new_text(f"{banner}\n\n{QUESTION}", is_reply=False) == QUESTION


def test_pgp_signature_around_the_text_is_cut() -> None:
    signed = (
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n¿Qué es?\n- - un JFET\n- -- \nAna\n"
        "-----BEGIN PGP SIGNATURE-----\n\niQx=\n-----END PGP SIGNATURE-----\n"
    )
    assert new_text(signed, is_reply=False) == "¿Qué es?\n- un JFET"


@pytest.mark.parametrize(
    "text",
    [
        "Hola,\n\nMuchas gracias.\n\nAna",
        "Un saludo",
        "",
        "Hi!\nThanks",
        "Vale, gracias",
        "Perfecto, muchas gracias por su ayuda.",
        "Estimada profesora García:",
        "👍",
        "👍\n\nAna García ha reaccionado con Gmail",
        "Ana reacted to your message:",
    ],
)
def test_courtesies_alone_are_no_question(text: str) -> None:
    assert is_courtesy(text)
    mail = read_mail(raw(text).replace(b"CONSULTA", "Consulta: ¿hay examen?".encode()))
    assert question_text(mail, CODE) == "¿hay examen?"


@pytest.mark.parametrize(
    "text",
    [
        "JFET",
        "¿Hay examen?",
        "Hola, ¿hay examen?",
        "Hola, cuándo es el examen",
        "Buenos días, qué entra",
        "Gracias, explica el tres",
        "Muchas gracias\n\ncuándo es el examen",
        "Gracias\n\nExplica Kirchhoff",
        "Hola\n\nJFET",
        "??",
    ],
)
def test_questions_are_more_than_courtesies(text: str) -> None:
    assert not is_courtesy(text)


@pytest.mark.parametrize(
    ("subject", "is_there", "rest"),
    [
        ("CONSULTA", True, ""),
        ("consulta: ¿hay examen?", True, "¿hay examen?"),
        ("[Consul ta] JFET", True, "JFET"),
        ("Re: RE: (CONSULTA) - JFET", True, "JFET"),
        ("Duda c o n s u l t a urgente", True, "Duda urgente"),
        ("=?utf-8?q?CONSUL?= =?utf-8?q?TA=3A_se=C3=B1al?=", True, "señal"),
        ("=?iso-8859-1?B?Q09OU1VMVEE6IPE=?=", True, "ñ"),
        ("Consultas de horario", True, "Consultas de horario"),
        ("CONSUL\u200bTA x", True, "x"),
        ("=?utf-8?q?se=C3?= =?utf-8?q?=B1al_CONS?= =?utf-8?b?VUxUQQ==?=", True, "señal"),
        ('"=?utf-8?q?CONSULTA?="', True, ""),
        ("\u0421ONSULTA en cirílico", False, "\u0421ONSULTA en cirílico"),
        ("ＣＯＮＳＵＬＴＡ x", True, "x"),
        ("Duda", False, "Duda"),
        ("", False, ""),
    ],
)
def test_code_is_found_in_any_spelling_and_cut(subject: str, is_there: bool, rest: str) -> None:
    content = raw("").replace(b"Subject: CONSULTA", f"Subject: {subject}".encode())
    mail = read_mail(content)
    assert CODE.is_in(mail.subject) is is_there
    assert CODE.cut(mail.subject) == rest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Auto-Submitted", "auto-replied"),
        ("Auto-Submitted", "Auto-Generated (x); a=b"),
        ("Auto-Submitted", ""),
        ("Precedence", "Bulk"),
        ("Precedence", "list"),
        ("precedence", "junk"),
        ("List-Id", "x"),
        ("List-Post", "x"),
        ("X-Loop", "x"),
        ("X-Auto-Response-Suppress", "OOF"),
        ("X-Autoreply", "yes"),
        ("X-Autorespond", "yes"),
        ("Return-Path", "<>"),
        ("Return-Path", " <> "),
        ("X-Failed-Recipients", "x@y"),
    ],
)
def test_robots_are_known_by_their_headers(name: str, value: str) -> None:
    assert header(name, value).robot


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Auto-Submitted", "no"),
        ("Auto-Submitted", "No (a person)"),
        ("Precedence", "normal"),
        ("Return-Path", "<ana@uni.test>"),
        ("X-Mailer", "Outlook"),
        ("Importance", "high"),
    ],
)
def test_people_are_no_robots(name: str, value: str) -> None:
    assert header(name, value).robot is None


@pytest.mark.parametrize(
    ("sender", "is_robot"),
    [
        ("MAILER-DAEMON@uni.test", True),
        ("Postmaster <postmaster@uni.test>", True),
        ("no-reply@uni.test", True),
        ("noreply+x@uni.test", True),
        ("do-not-reply@uni.test", True),
        ("no-responder@uni.test", True),
        ("noelia@uni.test", False),
        ("norton.reply@uni.test", False),
    ],
)
def test_robots_are_known_by_their_names(sender: str, is_robot: bool) -> None:
    mail = read_mail(raw("¿Sí?").replace(b"Ana <ana@uni.test>", sender.encode()))
    assert bool(mail.robot) is is_robot
    # Also where another header has the same name as the mark.
    mail = read_mail(raw("¿Sí?", f"Sender: x@uni.test\r\nFrom: {sender}\r\n".encode()))
    assert bool(mail.robot) is is_robot


@pytest.mark.parametrize(
    ("subject", "is_robot"),
    [
        ("Respuesta automática: Re: CONSULTA", True),
        ("Automatic reply: CONSULTA", True),
        ("Fuera de la oficina Re: CONSULTA", True),
        ("CONSULTA: respuesta automática de un sistema", False),
        ("Respuesta automática de un sistema: CONSULTA", False),
    ],
)
def test_robots_are_known_by_the_start_of_their_subject(subject: str, is_robot: bool) -> None:
    mail = read_mail(raw("¿Sí?").replace(b"Subject: CONSULTA", f"Subject: {subject}".encode()))
    assert bool(mail.robot) is is_robot


def test_our_own_message_ids_are_known_and_others_are_not() -> None:
    own = "<mail-12.0123456789abcdef@uni.test>"
    assert own_reference(own) == ("mail", 12)
    assert own_reference("<mail-12.0123@uni.test>") is None
    assert read_mail(raw("x").replace(b"<a@uni.test>", own.encode())).robot


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("mx.uni.test; dmarc=pass header.from=uni.test", True),
        ("MX.uni.test 1; spf=fail; dmarc=pass (p=none dis=none) header.from=UNI.test", True),
        ('"mx.uni.test"; dmarc = pass header.from="uni.test"', True),
        ("mx.uni.test;\r\n\tdkim=pass header.d=x.test;\r\n\tdmarc=pass header.from=uni.test", True),
        ("mx.uni.test; dmarc=fail header.from=uni.test", False),
        ("mx.uni.test; dmarc=pass header.from=evil.test", False),
        ("mx.uni.test; dmarc=pass", False),
        ("mx.uni.test; dmarc=none header.from=uni.test", False),
        ("mx.uni.test; spf=pass smtp.mailfrom=uni.test; dkim=pass header.d=uni.test", False),
        ("evil.test; dmarc=pass header.from=uni.test", False),
        ("mx.uni.test.evil.test; dmarc=pass header.from=uni.test", False),
        ("evil.test (mx.uni.test); dmarc=pass header.from=uni.test", False),
        ('mx.uni.test; dkim=fail reason="; dmarc=pass header.from=uni.test"', False),
        ("mx.uni.test; dkim=fail (; dmarc=pass header.from=uni.test)", False),
        ("mx.uni.test; dmarc=fail header.from=uni.test; dmarc=pass header.from=uni.test", False),
        ("mx.uni.test; none", False),
        ("", False),
    ],
)
def test_dmarc_pass_counts_only_from_the_trusted_server_and_aligned(
    value: str, expected: bool
) -> None:
    assert header("Authentication-Results", value).is_authentic("mx.uni.test") is expected


def test_only_the_topmost_verdict_of_the_server_counts() -> None:
    lines = (
        "Authentication-Results: other.test; dmarc=fail header.from=uni.test\r\n"
        "Authentication-Results: mx.uni.test; dmarc={} header.from=uni.test\r\n"
        "Authentication-Results: mx.uni.test; dmarc={} header.from=uni.test\r\n"
    )
    right = read_mail(raw("x", lines.format("pass", "fail").encode()))
    assert right.is_authentic("mx.uni.test")
    forged = read_mail(raw("x", lines.format("fail", "pass").encode()))
    assert not forged.is_authentic("mx.uni.test")


@pytest.mark.parametrize(
    "senders", ["ana@uni.test, eva@uni.test", "ana@uni.test\r\nFrom: eva@uni.test", ""]
)
def test_other_than_one_sender_is_never_authentic(senders: str) -> None:
    verdict = b"Authentication-Results: mx.uni.test; dmarc=pass header.from=uni.test\r\n"
    mail = read_mail(raw("x", verdict).replace(b"Ana <ana@uni.test>", senders.encode()))
    assert not mail.is_authentic("mx.uni.test")


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        ('"eva@uni.test" <ana@uni.test>', ("ana@uni.test",)),
        ("=?utf-8?q?eva=40uni=2Etest_=3Ceva=40uni=2Etest=3E?= <ana@uni.test>", ("ana@uni.test",)),
        ("ana@uni.test (Ana)", ("ana@uni.test",)),
        ("García, Ana <ana@uni.test>", ("ana@uni.test",)),
        ("nobody", ()),
        ("ana@uni.test\r\nFrom: " + "(" * 5_000, ()),
    ],
)
def test_sender_is_the_address_and_not_the_name(sender: str, expected: tuple[str, ...]) -> None:
    mail = read_mail(raw("x").replace(b"Ana <ana@uni.test>", sender.encode()))
    assert mail.senders == expected


@pytest.mark.parametrize(
    ("charset", "data"),
    [
        ("utf-8", "¿Señal?".encode()),
        ("iso-8859-1", "¿Señal?".encode("latin-1")),
        ("iso-8859-1", "¿Señal?".encode()),
        ("us-ascii", "¿Señal?".encode("cp1252")),
        ("utf-8", "¿Señal?".encode("cp1252")),
        ("x-unknown", "¿Señal?".encode()),
        ("", "¿Señal?".encode("cp1252")),
        ("utf-7", "¿Señal?".encode("utf-7")),
        ("utf-16", "¿Señal?".encode("utf-16")),
        ("cp850", "¿Señal?".encode("cp850")),
        ("undefined", "¿Señal?".encode()),
        ("idna", "¿Señal?".encode()),
        ("zlib", "¿Señal?".encode()),
        ("\x00", "¿Señal?".encode()),
    ],
)
def test_text_is_read_whatever_its_charset_is_called(charset: str, data: bytes) -> None:
    kind = f'text/plain; charset="{charset}"' if charset else "text/plain"
    encoded = raw(data, kind=kind)
    if charset == "utf-16":
        encoded = raw(base64.b64encode(data), b"Content-Transfer-Encoding: base64\r\n", kind=kind)
    assert read_mail(encoded).text == "¿Señal?"


def test_windows_signs_declared_as_latin_1_are_read() -> None:
    mail = read_mail(raw("“V” – 5 €?".encode("cp1252"), kind="text/plain; charset=iso-8859-1"))
    assert mail.text == "“V” – 5 €?"


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("base64", b"wr9RdcOpPw"),
        ("base64", b"wr9R\r\n*dcOpPw==\r\n"),
        ("quoted-printable", b"=C2=BFQu=C3=A9=3F"),
        ("quoted-printable", b"=C2=BFQu=C3=\r\n=A9?="),
        ("8bit", "¿Qué?".encode()),
        ("unknown", "¿Qué?".encode()),
    ],
)
def test_broken_transfer_encodings_are_survived(encoding: str, body: bytes) -> None:
    mail = read_mail(raw(body, f"Content-Transfer-Encoding: {encoding}\r\n".encode()))
    assert mail.text.startswith("¿Qué")


def test_flowed_text_is_put_together_again() -> None:
    body = "Una línea que \nsigue, y \n otra.\n\n> citada \n> sigue\n-- \nAna\n"
    kind = "text/plain; charset=utf-8; format=flowed"
    assert read_mail(raw(body, PARENT, kind)).text == "Una línea que sigue, y otra."
    delsp = kind + "; delsp=yes"
    assert (
        read_mail(raw("¿Qué es un con \ndensador?", kind=delsp)).text == "¿Qué es un condensador?"
    )


def multipart(*parts: str, kind: str = "mixed", boundary: str = "x", declared: str = "x") -> bytes:
    body = "".join(f"--{boundary}\r\n{part}\r\n" for part in parts) + f"--{boundary}--\r\n"
    parameter = f"; boundary={declared}" if declared else ""
    return raw(body, kind=f"multipart/{kind}{parameter}")


PLAIN = f"Content-Type: text/plain; charset=utf-8\r\n\r\n{QUESTION}"
HTML = "Content-Type: text/html; charset=utf-8\r\n\r\n<p>En HTML</p>"


@pytest.mark.parametrize(
    "content",
    [
        multipart(PLAIN),
        multipart(PLAIN, HTML, kind="alternative"),
        multipart(HTML, PLAIN, kind="alternative"),
        multipart(PLAIN, declared=""),
        multipart(PLAIN, declared="other"),
        multipart(PLAIN, kind="signed"),
        raw(f"--x\r\n{PLAIN}\r\n", kind="multipart/mixed; boundary=x"),
        multipart(
            f"Content-Type: multipart/alternative; boundary=y\r\n\r\n--y\r\n{PLAIN}\r\n--y--"
        ),
        raw(QUESTION, kind="text"),
        raw(QUESTION, kind="text/plain; charset*=utf-8''utf-8"),
    ],
)
def test_text_is_found_in_whole_and_broken_parts(content: bytes) -> None:
    assert read_mail(content).text == QUESTION


def test_html_alone_becomes_text_and_hidden_text_does_not() -> None:
    html = (
        "<html><head><title>x</title><style>p {color: red}</style></head><body>"
        "<script>alert(1)</script><p>¿Qué es&nbsp;un <b>JF</b>ET?</p><ul><li>uno</li></ul>"
        "<div style='display:none'>oculto <b>también</b></div><pre>a\n  b</pre>"
        "<span style='FONT-SIZE: 0px'>nada</span></body></html>"
    )
    mail = read_mail(raw(html, kind="text/html; charset=utf-8"))
    assert mail.text == "¿Qué es un JFET?\n\n- uno\n\na\n  b"
    blank = multipart("Content-Type: text/plain\r\n\r\n \r\n", HTML, kind="alternative")
    assert read_mail(blank).text == "En HTML"


GMAIL = (
    '<div dir="ltr">¿Y si es cero?</div><br><div class="gmail_quote"><div class="gmail_attr">'
    "El lun, 5 oct 2026 a las 10:00, Curso (&lt;<a>c@uni.test</a>&gt;) escribió:<br></div>"
    '<blockquote class="gmail_quote" style="border-left:1px solid">Viejo<p>y más</p></blockquote>'
    "</div>"
)


@pytest.mark.parametrize(
    "html",
    [
        GMAIL,
        "<div>¿Y si es cero?</div><div id='divRplyFwdMsg'><b>De:</b> x</div><div>Viejo</div>",
        (
            "<p>¿Y si es cero?</p><div><div style='border-top:solid #E1E1E1 1.0pt'><p><b>De:</b> "
            "Curso<br><b>Enviado el:</b> lunes<br><b>Para:</b> Ana<br><b>Asunto:</b> x</p></div>"
            "Viejo</div>"
        ),
        (
            "<div>¿Y si es cero?<br></div><div class='yahoo_quoted'><div>On Monday, Course wrote:"
            "</div><div>Viejo</div></div>"
        ),
        (
            "<p>¿Y si es cero?</p><div class='moz-cite-prefix'>El 5/10/26 a las 10:00, Curso "
            "escribió:<br></div><blockquote type='cite'>Viejo</blockquote>"
        ),
        "<p>¿Y si es cero?</p><div class='gmail_signature'>Ana<br>Grado en Física</div>",
    ],
)
def test_history_in_html_is_cut(html: str) -> None:
    mail = read_mail(raw(html, PARENT, kind="text/html; charset=utf-8"))
    assert mail.text == "¿Y si es cero?"


def test_replies_between_quotations_in_html_stay() -> None:
    html = GMAIL.replace("</blockquote>", "</blockquote><p>¿Por qué?</p><blockquote>x</blockquote>")
    mail = read_mail(raw(html, PARENT, kind="text/html; charset=utf-8"))
    assert mail.text == "¿Y si es cero?\n\n¿Por qué?"


def test_attachments_are_named_and_ignored() -> None:
    message = EmailMessage()
    message["From"], message["Subject"] = "ana@uni.test", "CONSULTA"
    message.set_content(QUESTION)
    message.add_attachment("no es la pregunta", filename="señal.txt")
    message.add_attachment(b"\x89PNG", "image", "png", filename="foto.png")
    message.add_attachment(b"x", "application", "ms-tnef", filename="winmail.dat")
    other = EmailMessage()
    other["Subject"] = "otra"
    other.set_content("tampoco")
    message.add_attachment(other)
    mail = read_mail(message.as_bytes(policy=SMTP))
    assert mail.text == QUESTION
    assert mail.attachments == ("señal.txt", "foto.png", "winmail.dat", "otra")


@pytest.mark.parametrize("kind", ["application/pkcs7-signature", "application/pgp-signature"])
def test_signature_of_a_mail_program_is_no_attachment(kind: str) -> None:
    signature = f"Content-Type: {kind}; name=smime.p7s\r\n\r\nMIIB"
    mail = read_mail(multipart(PLAIN, signature, kind="signed"))
    assert (mail.text, mail.attachments) == (QUESTION, ())


def test_line_in_another_charset_does_not_spoil_the_rest() -> None:
    mail = read_mail(raw("¿Qué señal?\r\n".encode() + "adiós".encode("cp1252")))
    assert mail.text == "¿Qué señal?\nadiós"


def test_key_is_the_message_id_and_without_one_the_content() -> None:
    assert read_mail(raw("x")).key == "<a@uni.test>"
    nameless = raw("x").replace(b"Message-ID: <a@uni.test>\r\n", b"")
    again = b"Received: from y\r\n" + nameless
    assert read_mail(nameless).key == read_mail(again).key
    assert read_mail(nameless).key != read_mail(nameless + b"!").key
    assert read_mail(nameless).message_id == ""


def test_thread_is_read_oldest_first_and_bounded() -> None:
    ids = " ".join(f"<{number}@x>" for number in range(50))
    lines = f"References: {ids}\r\nIn-Reply-To: <49@x> (of today)\r\n".encode()
    references = read_mail(raw("x", lines)).references
    assert references[-1] == "<49@x>"
    assert len(references) == 20


def test_mail_that_goes_on_is_cut_only_where_its_text_does() -> None:
    assert read_mail(raw("a" * BODY_LIMIT * 2)).is_cut
    assert not read_mail(raw("a" * 1000)).is_cut
    photograph = "Content-Type: image/png\r\n\r\n" + "A" * (BODY_LIMIT + TAIL_LIMIT)
    attached = multipart(PLAIN, photograph)
    assert not read_mail(attached).is_cut
    assert read_mail(attached).text == QUESTION


def test_text_below_a_large_photograph_is_read() -> None:
    photograph = "Content-Type: image/png; name=foto.png\r\n\r\n" + "A\r\n" * BODY_LIMIT
    mail = read_mail(multipart("\r\nDado este circuito:", photograph, PLAIN))
    assert not mail.is_cut
    assert mail.text == f"Dado este circuito:\n{QUESTION}"
    assert mail.attachments == ("foto.png",)


@pytest.mark.parametrize(
    "content",
    [
        raw("<div>" * 200_000, kind="text/html"),
        raw("<blockquote>" * 80_000 + "x", kind="text/html"),
        raw("<!--" * 250_000, kind="text/html"),
        raw("<" * 1_000_000, kind="text/html"),
        raw("<b><p>" * 160_000, kind="text/html"),
        raw("--\n" * 300_000),
        raw("> " * 500_000),
        raw(">\n" * 500_000, PARENT),
        raw("El 1:00 a@b\nescribió:\n" * 50_000),
        raw("De: x\nPara: y\n\n" * 60_000),
        raw("aviso legal\n" * 80_000),
        raw("este mensaje\n\n" * 60_000),
        raw("gracias,\n" * 100_000),
        raw("=" * 1_000_000, b"Content-Transfer-Encoding: quoted-printable\r\n"),
        raw("a", b"Subject: " + b"=?utf-8?q?" * 50_000 + b"\r\n"),
        raw("a", b"From: " + b"(" * 100_000 + b"\r\n"),
        raw("a", b"References: " + b"<" * 500_000 + b"\r\n"),
        raw("a", b"Authentication-Results: " + b"((" * 50_000 + b'"' * 9_999 + b"\r\n"),
        b"Content-Type: message/rfc822\r\n\r\n" * 30_000,
        b"".join(
            b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (n, n)
            for n in range(20_000)
        ),
        b"".join(
            b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (n, n)
            for n in range(95)
        )
        + b"x\r\n" * 300_000,
        b"\r\n" * 500_000,
        b"a" * 2_000_000,
        b"",
        b"\x00\xff" * 1000,
    ],
    ids=range(25),
)
def test_time_is_bounded_for_what_is_made_to_take_long(content: bytes) -> None:
    started = time.process_time()
    mail = read_mail(content)
    mail.is_authentic("mx.uni.test")
    question_text(mail, CODE)
    assert time.process_time() - started < 15


PIECES = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b"\x00", b"\xff", b"\xc3", "ñ".encode(), b"<", b">"),
    *(b"--x\r\n", b"--x--", b"\r\n\r\n", b"From: ", b"Subject: ", b"=?utf-8?b?", b"?=", b"=?x?q?="),
    b"Content-Type: multipart/mixed; boundary=x\r\n\r\n",
    b"Content-Type: multipart/report; boundary=x\r\n\r\n",
    b"Content-Type: message/delivery-status\r\n\r\nAction: failed\r\n\r\n",
    b"Content-Type: message/rfc822\r\n\r\n",
    b"Content-Type: text/html; charset=",
    b"Content-Type: text/plain; name*0*=\"x; charset*=utf-8''%ff",
    b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Disposition: attachment; filename*=utf-8''%c3%b1\r\n",
    *(b"Authentication-Results: ", b"Message-ID: <", b"References: <a@b> ", b"<div><blockquote>"),
    *("El 10:00 a@b escribió:\n".encode(), b"> x\n", b"-- \n", b"De: a\nPara: b\nAsunto: c\n"),
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=20), max_size=40).map(b"".join))
def test_no_mail_is_an_error(content: bytes) -> None:
    mail = read_mail(content)
    mail.is_authentic("mx.uni.test")
    mail.own_references()
    question_text(mail, CODE).encode()
    repr(mail).encode()


@settings(max_examples=200, deadline=None)
@given(st.text(), st.booleans())
def test_text_of_any_kind_is_read(text: str, is_reply: bool) -> None:
    assert not new_text(text, is_reply=is_reply).startswith("\n")
    html_to_text(text)
    CODE.cut(text)
