"""Texts to compare tokenizers on, made from a seed: the same on every machine.

Sentences in many scripts, code, numbers, emoji, every kind of character,
control characters, long runs, special-token spellings, and random bytes.
"""

import random

SENTENCES = [
    "The harbour master counts the boats twice before the fog comes in.",
    "We'll see what they've done; I'm sure it isn't what she'd planned, he's late.",
    "\"Don't!\" she SHOUTED -- 'TIS not OURS, we'Ve said, IT'S THEY'RE, y'all'd've.",
    "Der Müller zählt siebenundzwanzig Säcke Weizenmehl für Übermorgen, größtenteils.",
    "L'été dernier, nous avons goûté des crêpes près de l'église; où étiez-vous ?",
    "El niño pequeño preguntó: ¿cuándo volverá la cigüeña del año pasado?",
    "Żółta łódź płynie powoli ku źródłu rzeki, gdzie śpią gęsi.",
    "Příliš mnoho koní stálo u řeky a čekalo na déšť.",
    "Năm ngoái chúng tôi trồng bưởi, ổi và những cây xoài nhỏ ở vườn sau.",
    "Küçük ılık ırmağın kıyısında İnci ile Işık çay içti.",
    "Старый маяк светил всю ночь, и рыбаки вернулись домой к рассвету.",
    "Їжак приніс яблуко; ґанок був ще мокрий від дощу.",
    "Ο φάρος άναψε νωρίς, και οι ψαράδες γύρισαν στο λιμάνι πριν ξημερώσει.",
    "המגדלור הישן האיר את החוף, והדייגים שבו הביתה לפנות בוקר.",
    "أضاءت المنارة القديمة الساحل، وعاد الصيادون قبل الفجر بقليل.",
    "چراغ دریایی کهنه تا سپیده روشن ماند و ماهیگیران برگشتند.",
    "पुराना दीपस्तंभ रात भर चमकता रहा और मछुआरे सुबह लौट आए।",
    "পুরোনো বাতিঘর সারারাত জ্বলেছিল, জেলেরা ভোরে ফিরেছে।",
    "பழைய கலங்கரை விளக்கம் இரவெல்லாம் ஒளிர்ந்தது.",
    "పాత దీపస్తంభం రాత్రంతా వెలిగింది, జాలరులు తిరిగి వచ్చారు.",
    "ประภาคารเก่าส่องสว่างทั้งคืน ชาวประมงกลับมาก่อนรุ่งสาง",
    "ဟောင်းနွမ်းသော မီးပြတိုက်သည် တစ်ညလုံး လင်းနေသည်။",
    "ძველი შუქურა მთელი ღამე ანათებდა, მეთევზეები დაბრუნდნენ.",
    "Հին փարոսը լուսավորեց ափը, և ձկնորսները վերադարձան։",
    "የድሮው መብራት ሌሊቱን ሙሉ አበራ።",
    "古い灯台は一晩中光り、漁師たちは夜明け前に港へ戻った。カタカナとｶﾀｶﾅも。",
    "老灯塔整夜亮着，渔民们在黎明前回到了港口；共有三百二十一条船。",
    "오래된 등대는 밤새 빛났고 어부들은 새벽 전에 항구로 돌아왔다.",
    "Fyrtårnet lyste heile natta; sjøfolkene rodde hjem før dagen grydde, æøå ÆØÅ.",
    "Öreg világítótorony őrzi a kikötőt, tűzpiros fénnyel.",
    "x² + y³ ≠ √z; ∀ε>0 ∃δ: |x−a|<δ ⇒ |f(x)−L|<ε, 10⁻³ ½ ⅔ Ⅷ ①②③ ㊿",
    "Prices: $1,299.99 / €45 / ¥12000 / ₹99 / £0.50; 25% off, 3–5 days, №7, §12.",
    "See https://example.org/a/b?q=1&r=%20#top or mail <someone@example.org>.",
    "👩‍👩‍👧‍👦 went 🏃🏽‍♀️ to 🏖️; 🇳🇴🇯🇵 flags, 1️⃣2️⃣, ❤️‍🔥 and 🧑🏿‍🚀!",
]

CODE = [
    "def area(width, height):\n    \"\"\"Square metres.\"\"\"\n    return width * height\n",
    "for (int i = 0; i < n; ++i) {\n\t\tsum += a[i] * b[n - 1 - i];\n\t}\n",
    "SELECT name, COUNT(*) FROM boats WHERE length_m >= 12.5 GROUP BY name;\r\n",
    "<div class=\"note\" id='n1'>\n  <p>Tide &amp; time</p>\n</div>\n",
    "{\"boats\": [{\"name\": \"Odin\", \"crew\": 4, \"ok\": true}, null, -1.5e-7]}\n",
    "#include <vector>\n\ntemplate <class T>\nT last(const std::vector<T>& v) {\n  return v.back();\n}\n",
    "$ tar -xzf tide.tgz && cd tide && ./configure --prefix=/opt/tide 2>&1 | tee log\n",
    "fn main() {\n    let mut v: Vec<u8> = vec![0x1F; 256];\n    println!(\"{:?}\", &v[..4]);\n}\n",
    "const f = async (x) => { await g(x ?? 0); return `${x}: ${x ** 2}`; };\n",
    "\\begin{align} \\int_0^1 e^{-x^2}\\,dx &\\approx 0.7468 \\end{align}\n",
]

SPACES = [" ", "\t", "\n", "\r\n", "\r", "\v", "\f", "\x85", "\xa0", "\u1680",
          "\u180e", "\u2003", "\u200b", "\u2028", "\u2029", "\u202f", "\u3000",
          "\ufeff"]

# Ranges that are worth more than their share of all characters.
BLOCKS = [(0x00, 0x20), (0x7F, 0xA1), (0x300, 0x370), (0x2000, 0x2070),
          (0x600, 0x610), (0x900, 0x980), (0x1B00, 0x1B80), (0x2460, 0x2500),
          (0xFE00, 0xFE10), (0xFFF0, 0x10000), (0x1F1E6, 0x1F200),
          (0x1F300, 0x1FAFF), (0xE0000, 0xE0080), (0x1D400, 0x1D800),
          (0x10D40, 0x10D90), (0x11380, 0x113E0), (0x16D40, 0x16D80),
          (0x11F00, 0x11F60), (0x1E4D0, 0x1E4FA), (0x11DD0, 0x11DF0),
          (0x16FF0, 0x17000), (0x31350, 0x323B0), (0x2EBF0, 0x2EE60)]


def character(r):
    """Any scalar value, assigned or not."""
    if r.random() < 0.5:
        low, high = r.choice(BLOCKS)
    else:
        low, high = r.choice([(0, 0x3000), (0, 0x10000), (0x10000, 0x110000)])
    while True:
        value = r.randrange(low, high)
        if not 0xD800 <= value < 0xE000:
            return chr(value)


def pick_prose(r):
    return " ".join(r.choice(SENTENCES) for _ in range(r.randint(1, 12)))


def pick_code(r):
    return "".join(r.choice(CODE) for _ in range(r.randint(1, 8)))


def pick_numbers(r):
    out = []
    for _ in range(r.randint(1, 30)):
        digits = r.choice(["0123456789", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "０１２３"])
        out.append("".join(r.choice(digits) for _ in range(r.randint(1, 20))))
    return r.choice([" ", ",", ".", "-", "  ", ""]).join(out)


def pick_runs(r):
    out = []
    for _ in range(r.randint(1, 8)):
        unit = r.choice(SPACES + list("0a.-=_#/'!中ж") + ["ab", " \n", "\n ", "🙂"])
        out.append(unit * r.choice([1, 2, 3, 5, 17, 64, 65, 300]))
        out.append(r.choice(["", "x", " word", "7", "'s", "\u0301", "?"]))
    return "".join(out)


def pick_characters(r):
    return "".join(character(r) for _ in range(r.randint(1, 120)))


def pick_words(r):
    """Words torn apart and put together again."""
    words = " ".join(r.choices(SENTENCES + CODE, k=3)).split(" ")
    r.shuffle(words)
    return "".join(w + r.choice([" ", "", "  ", "\n", " '", "'"] + SPACES)
                   for w in words[:60])


def pick_marks(r):
    base = "aeiou กा가e👩🧑ﷺǅﬁſK'"
    marks = "\u0301\u0308\u0323\u0327\u200d\ufe0f\u20e3\U0001F3FD\u0e33\u11a8"
    return "".join(r.choice(base) + "".join(
        r.choice(marks) for _ in range(r.randint(0, 4)))
        for _ in range(r.randint(1, 60)))


def pick_contractions(r):
    ends = ["'s", "'S", "'t", "'re", "'RE", "'Ve", "'m", "'ll", "'lL", "'d",
            "'ſ", "’s", "'", "''s", "'x", "'ＬＬ"]
    return " ".join(r.choice(["we", "IT", "ж", "7", "", "\n", "中"])
                    + r.choice(ends) for _ in range(r.randint(1, 60)))


def pick_bytes(r):
    kind = r.randrange(3)
    if kind == 0:
        return r.randbytes(r.randint(1, 300))
    text = bytearray(pick_prose(r).encode())
    for _ in range(r.randint(1, 20)):
        at = r.randrange(len(text))
        if kind == 1:
            text[at] = r.randrange(256)
        else:
            del text[at]
    return bytes(text[: r.randint(1, len(text))])


PICKS = [(pick_prose, 30), (pick_code, 14), (pick_numbers, 8), (pick_runs, 12),
         (pick_characters, 12), (pick_words, 12), (pick_marks, 5),
         (pick_contractions, 5), (pick_bytes, 12)]


def texts(seed, bytes_min, specials=()):
    """Byte strings of at least `bytes_min` bytes in all. Spellings of
    `specials` are strewn into some of them."""
    r = random.Random(seed)
    kinds = [k for k, _ in PICKS]
    weights = [w for _, w in PICKS]
    size = 0
    while size < bytes_min:
        parts = []
        for _ in range(r.choice([1, 1, 2, 6])):
            part = r.choices(kinds, weights)[0](r)
            parts.append(part if isinstance(part, bytes) else part.encode())
            if specials and r.random() < 0.2:
                token = r.choice(specials).encode()
                cut = r.choice([len(token), len(token), r.randint(1, len(token))])
                parts.append(r.choice([b"", b" ", b"  \n"]) + token[:cut]
                             + r.choice([b"", b" ", b"\t x", b"s"]))
        out = b"".join(parts)
        size += len(out)
        yield out


def every_character():
    """Texts with every scalar value between letters, spaces and digits."""
    return ["".join(f"a{chr(c)} {chr(c)}{chr(c)}1\n{chr(c)}"
                    for c in range(base, base + 512)
                    if not 0xD800 <= c < 0xE000).encode()
            for base in range(0, 0x110000, 512)]
