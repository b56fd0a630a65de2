"""The first screen of the report: what was learned, how well, what left each site, how private. Written for a reader who knows logistic regression."""

from __future__ import annotations

from fedjax_poisson.reports.formatting import (
    MISSING,
    format_bytes,
    format_epsilon,
    format_share,
    in_hundred,
    interval_text,
    plural,
    shown,
    site_word,
    words,
)
from fedjax_poisson.reports.grounds import counted, grounds
from fedjax_poisson.reports.guarantees import assumed, conditions, encrypted, noise_senders, reasons_against
from fedjax_poisson.reports.html import Child, Html, bold, element, paragraph, table, tag
from fedjax_poisson.reports.trade_off import EXAMPLE, TradeOff
from fedjax_poisson.runs.headline import headline
from fedjax_poisson.runs.run_folder import (
    LedgerCheck,
    RunFolder,
    held_out_records,
    in_consortium,
    number,
    numbers_by_name,
    site_rows,
    training_records,
)

__all__ = ["answers", "model_words", "task_words"]

_MODELS = {
    "logistic": "logistic regression",
    "mlp": "a neural network with two hidden layers",
    "scattering": "a linear model on fixed wavelet features",
    "cnn": "a small convolutional network",
    "small_resnet": "a small residual network",
    "resnet18": "a residual network (ResNet-18)",
    "resnet50": "a residual network (ResNet-50)",
}
_LINEAR = {
    "multiclass": "softmax regression",
    "multilabel": "a logistic regression for each label",
    "regression": "linear regression",
}
_MOST_SITES = 6


def answers(run: RunFolder, ledger: LedgerCheck, curve: TradeOff | None) -> Html:
    """Four cards, each a question with its answer."""
    one = site_word(run, 1)
    cards = (
        ("What was learned?", _learned(run)),
        ("How well does it work?", _how_well(run)),
        (f"What left each {one}?", _what_left(run)),
        ("How private is it?", _how_private(run, ledger, curve)),
    )
    return element(
        "section",
        element(
            "div",
            *(element("div", element("h2", title), *parts, class_="card") for title, parts in cards),
            class_="cards",
        ),
        class_="answers",
    )


def model_words(run: RunFolder) -> str:
    """The model in words."""
    name, task = run.summary.get("model"), str(run.summary.get("task"))
    if name == "logistic" and task in _LINEAR:
        return _LINEAR[task]
    return _MODELS.get(str(name), words(name))


def task_words(run: RunFolder) -> str:
    """What the model predicts, from its classes."""
    classes = run.summary.get("classes")
    names = [str(each) for each in classes] if isinstance(classes, list) else []
    if not names:
        return f"what it predicts was {MISSING}"
    if run.summary.get("task") == "regression":
        return f"the number “{names[0]}”"
    if run.summary.get("task") == "multilabel":
        return f"yes or no for each of {_listed(names, 'and')}"
    return _listed([f"“{name}”" for name in names], "or")


def _listed(names: list[str], word: str) -> str:
    if len(names) > 6:
        return f"{', '.join(names[:5])}, … ({len(names)} in all)"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def _learned(run: RunFolder) -> list[Child]:
    summary, many = run.summary, site_word(run)
    senders, records = number(summary.get("senders")), training_records(run)
    who = MISSING if senders is None else plural(senders, site_word(run, 1), many)
    model = model_words(run)
    shape = summary.get("record_shape")
    sizes = [f"{each:,}" for each in shape if isinstance(each, int)] if isinstance(shape, list) else []
    inputs = (
        f" from {sizes[0]} numbers a record"
        if len(sizes) == 1
        else f" from images of {' × '.join(sizes)}"
        if sizes
        else ""
    )
    data = f" on {records:,.0f} training records" if records else ""
    here = (
        f"Every {site_word(run, 1)} kept its records on a machine of its own."
        if in_consortium(run)
        else f"This was a simulation: all {many} were parts of one program."
    )
    parts: list[Child] = [
        element("span", model[:1].upper() + model[1:], class_="big"),
        paragraph(
            f"It predicts {task_words(run)}{inputs} and has {shown(summary.get('dimension'), '{:,.0f}'.format)} parameters."
        ),
        paragraph(
            bold(who),
            f" trained it together{data}, in {shown(summary.get('rounds'), '{:,.0f}'.format)} rounds. In each round every {site_word(run, 1)} sends "
            f"{_sent(run)}, and all receive the improved model. {here}",
        ),
    ]
    return parts


def _sent(run: RunFolder) -> str:
    """What a site sends in a training round."""
    what = "clipped update of its model" if run.summary.get("unit") == "client" else "sum over its own records"
    if noise_senders(run) is not None:
        return f"{'an encrypted' if encrypted(run) else 'a'} {what}, without noise of its own"
    return f"a noisy{', encrypted' if encrypted(run) else ''} {what}"


def _how_well(run: RunFolder) -> list[Child]:
    summary, lead = run.summary, headline(run.summary)
    intervals = summary.get("intervals")
    intervals = intervals if isinstance(intervals, dict) else {}
    name = "pooled_accuracy" if lead.share else lead.name
    value = number(summary.get(name))
    if value is None:
        return [element("span", "Not measured", class_="big"), paragraph(_why_unmeasured(run))]
    tested = held_out_records(run)
    form = format_share if lead.share else lead.text
    within = intervals.get(name)
    private = summary.get("evaluation") == "private"
    means = private and summary.get("unit") == "patient"
    on = "held-out patients" if means else f"{tested:,.0f} test records" if tested else "held-out records"
    what = "labels of " if summary.get("task") == "multilabel" else ""
    said = f"of the {what}{on} are classified correctly" if lead.share else f"{lead.words} on {on}"
    parts: list[Child] = [
        element("span", form(value), class_="big"),
        paragraph(
            said,
            f" (95 % interval {interval_text(within, form)})" if within else "",
            _area(run, intervals),
            ".",
            " A patient with several records counts once, with their mean." if means else "",
            " The noise of the release pulls the area towards 0.5."
            if private and number(summary.get("auc")) is not None
            else "",
            _plain(run, name, form),
        ),
    ]
    parts += _by_site(run, lead.by_site, intervals, form)
    return parts


def _why_unmeasured(run: RunFolder) -> str:
    if run.summary.get("evaluation") == "none":
        return "The settings asked for no scores. With --evaluation private a run releases noisy ones, which its budget pays for."
    return "No score was recorded, or the noise of a private release left nothing to show."


def _area(run: RunFolder, intervals: dict[str, object]) -> str:
    area = number(run.summary.get("auc"))
    if area is None:
        return ""
    within = f" ({interval_text(intervals.get('auc'), '{:.2f}'.format)})" if intervals.get("auc") else ""
    return f"; area under the ROC curve {area:.3f}{within}"


def _plain(run: RunFolder, name: str, form: object) -> str:
    plain = number(run.summary.get(f"nonprivate_{name}"))
    return "" if plain is None else f" The same recipe without privacy: {form(plain)}."  # type: ignore[operator]


def _by_site(run: RunFolder, key: str, intervals: dict[str, object], form: object) -> list[Child]:
    own, within = numbers_by_name(run.summary.get(key)), intervals.get(key)
    if not own:
        return []
    ends = within if isinstance(within, dict) else {}
    tested = {name: held for name, _, held in site_rows(run)}
    names = list(own)[:_MOST_SITES]
    public = any(tested.get(name) for name in names)
    head: list[Child] = [site_word(run, 1), *(["test records"] if public else []), "score", "95 % interval"]
    rows: list[list[Child]] = [
        [
            name,
            *([shown(tested.get(name), "{:,.0f}".format)] if public else []),
            form(own[name]),  # type: ignore[operator]
            interval_text(ends.get(name), form),  # type: ignore[arg-type]
        ]
        for name in names
    ]
    more = f" {plural(len(own) - _MOST_SITES, 'more site')} below." if len(own) > _MOST_SITES else ""
    return [table(head, rows), *([paragraph(more.strip())] if more else [])]


def _what_left(run: RunFolder) -> list[Child]:
    summary, one, many = run.summary, site_word(run, 1), site_word(run)
    count = len(run.rounds)
    kind = "encrypted message" if encrypted(run) else "message in the clear"
    lead = plural(count, kind, kind.replace("message", "messages")) if count else f"Messages: {MISSING}"
    total = shown(summary.get("bytes_up_total_per_client"), format_bytes)
    unit = words(summary.get("unit"))
    reads = (
        f"Only the sum over all {shown(summary.get('senders'), '{:g}'.format)} {many} was decrypted, never what a single {one} sent."
        if encrypted(run)
        else f"Nothing was encrypted: the server read what each {one} sent."
    )
    held = (
        f"a clipped update of the {one}’s model"
        if unit == "client"
        else f"sums over the {one}’s records in which no {unit} counts for more than a fixed amount"
    )
    by = noise_senders(run)
    noise = (
        ", with random noise added before it leaves."
        if by is None
        else f", in training without noise of its own. The noise is added by {plural(by, 'noise sender')} before anything is opened."
    )
    return [
        element("span", lead, class_="big"),
        paragraph(
            f"{total} from each {one}, {shown(summary.get('bytes_up_per_client_per_round'), format_bytes)} in a training round. {reads}"
        ),
        paragraph(f"A message holds {held}{noise} Records, labels, names and dates stayed where they were."),
    ]


def _how_private(run: RunFolder, ledger: LedgerCheck, curve: TradeOff | None) -> list[Child]:
    summary = run.summary
    if reasons_against(run):
        return [
            element("span", "Not private", class_="big"),
            paragraph(
                bold("It was not private"),
                ": the box above explains why. What holds nevertheless is under ",
                _link("How private it is"),
                ".",
            ),
        ]
    subject = "With the conditions in the box above: " if conditions(run) or assumed(run) else ""
    epsilon = shown(summary.get("epsilon"), format_epsilon)
    unit = words(summary.get("unit"))
    test: list[Child] = []
    if curve is not None:
        test = [
            f"Whoever tries to find out whether a {unit} was used, and wrongly names {100 * EXAMPLE:g} in 100 that were not, finds ",
            bold(f"at most {in_hundred(curve.at(EXAMPLE))}"),
            f" that were ({100 * EXAMPLE:g} by guessing).",
        ]
    parts: list[Child] = [
        element("span", f"epsilon {epsilon}", class_="big"),
        paragraph(f"{subject}at delta {shown(summary.get('delta'))}, for each {unit}. ", *test),
        paragraph(bold("Against whom: "), _against(run)),
    ]
    order = {"broken": 0, "proved": 1, "checked": 2, "assumed": 3}
    first = sorted(grounds(run, ledger)[:4], key=lambda each: order[each.status])
    items = [
        element(
            "li", tag(each.status, "does not hold" if each.status == "broken" else each.status), " ", each.statement
        )
        for each in first
    ]
    parts.append(element("ul", *items))
    return parts


def _against(run: RunFolder) -> str:
    of, many = counted(run), site_word(run)
    who = "everyone who sees the model and all that was released, with any computer and any other knowledge"
    if of is None or of[1] <= of[0]:
        knows = "a noise sender" if run.summary.get("noise_senders") else f"a {site_word(run, 1)} that took part"
        return f"{who}, but not {knows}: it knows its own noise."
    others = (
        plural(of[1] - of[0], "noise sender")
        if run.summary.get("noise_senders")
        else plural(of[1] - of[0], site_word(run, 1), many)
    )
    return f"{who}; also if the server and {others} work together."


def _link(title: str) -> Html:
    return element("a", title, href="#how-private")
