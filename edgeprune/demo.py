"""The embedded example: commands to a home assistant, written by a small grammar, and a recipe.

The target task asks which of three things is meant (light, heat, sound) and what is to happen to
it. Other things and other actions are named in the same breath, so no single word decides.
Training, validation and test rows share their labels but no wording. The auxiliary rows are
requests in a car: other things and other labels, but the turns of phrase that a home hears too.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from edgeprune.errors import InputError, ResourceError

_OPPOSITE = {"on": "off", "off": "on", "up": "down", "down": "up"}
_ACTIONS = (*_OPPOSITE, "ask")
_PLANS = ("later", "cancel")  # about a command, whatever the thing and the action
_SLOT = re.compile(r"\{(\w+)\}")

# A wording: a slot, a colon, its alternatives. `*` stands for the thing that is meant, {other} for
# one that is not; {do} is the command and {undo} its opposite. A slot such as light_up adds to `up`
# for one thing; its _hint says what is wrong instead of what to do.
_TRAIN = """
light: lamp | ceiling light | desk lamp | hall light | spotlight
heat: heating | radiator | heater | electric heater | oven
sound: music | radio | speaker | television sound | playlist
room: kitchen | living room | bedroom | bathroom | hall | attic
time: at eight | in ten minutes | at seven in the morning | in an hour | when i am back
time: after dinner | as soon as it is dark
on: turn on the * | switch on the * | turn the * on | switch the * on | activate the *
on: start the * | set the * going
off: turn off the * | switch off the * | turn the * off | switch the * off | deactivate the *
off: stop the * | shut the * off
up: turn up the * | turn the * up | increase the * | set the * higher | give us more of the *
down: turn down the * | turn the * down | reduce the * | set the * lower | give us less of the *
ask: is the * on | is the * off | did i leave the * on | do you know if the * is active
light_up: make the * brighter
light_down: make the * darker | dim the *
light_ask: how bright is the *
light_on_hint: i want light in the {room}
light_off_hint: nobody needs the * in the {room}
light_up_hint: it is too dark in the {room}
light_down_hint: it is too bright in the {room}
heat_up: make the * warmer
heat_down: make the * cooler
heat_ask: how warm is the *
heat_on_hint: i want the {room} heated
heat_off_hint: nobody needs the * in the {room}
heat_up_hint: it is too cold in the {room}
heat_down_hint: it is too hot in the {room}
sound_up: make the * louder
sound_down: make the * quieter
sound_ask: how loud is the *
sound_on_hint: i want to hear something in the {room}
sound_off_hint: i want silence in the {room}
sound_up_hint: i can not hear the * in the {room}
sound_down_hint: the * is too loud in the {room}
say: {do} | please {do} | could you {do} | {do} in the {room} | {do}, not the {other}
say: not the {other}, {do} | do not {undo}, {do} | leave the {other} alone and {do}
say: {do} but not the {other} | it is eight, {do} | the {other} is already on, {do}
question: {do} | tell me, {do} | {do} in the {room} | not the {other}, {do}
later: {do} {time} | {time} {do} | please {do} {time} | set a timer to {do} {time}
cancel: do not {do} {time} | cancel the timer to {do} {time} | you do not have to {do} {time}
cancel: forget the timer for the * | drop the plan to {do} {time}
opener: hey home | well
"""

_VALIDATION = """
light: floor lamp | bedside lamp | porch light
heat: floor heating | convector | fan heater
sound: loudspeaker | jazz station | sound system
room: office | nursery | dining room
time: at half past nine | in twenty minutes | tomorrow morning | before breakfast
on: let the * run | have the * on
off: have the * off | cut the *
up: put the * on a higher level | turn the * a bit higher
down: put the * on a lower level | turn the * a bit lower
ask: is the * running | has somebody turned the * on | check if the * is off
light_up: brighten the *
light_down: darken the *
light_up_hint: the {room} could do with more light
heat_up: get the * hotter
heat_down: cool the * down
heat_up_hint: we are freezing in the {room}
sound_up: give the * more volume
sound_down: give the * less volume
sound_down_hint: the * gives me a headache
say: i would like you to {do} | can you {do} for me | {do} and leave the {other} alone
say: the best thing would be to {do} | somebody ought to {do}
say: keep the {other} as it is and {do} | i said {do}, do not {undo} | {do} over in the {room}
question: i wonder, {do} | {do} or is it only the {other} | what about the {room}, {do}
later: {time} i want you to {do} | remember to {do} {time} | {do}, but only {time}
cancel: you need not {do} {time} | delete the order to {do} {time} | give up the timer for the *
opener: listen
"""

_TEST = """
light: chandelier | wall light | string of lights | bulb over the table | reading lamp | lantern
heat: boiler | stove | fireplace | thermostat | towel warmer | central heating
sound: stereo | song | record player | soundbar | podcast | hi-fi
room: garden | guest room | garage | conservatory | cellar | den
time: once the guests are gone | when i get home | half an hour from now | on sunday evening
time: right after the film | after sunset | at a quarter to six
on: have the * switched on | get the * going | enable the * | put the * on | power on the *
off: have the * switched off | shut down the * | kill the * | disable the * | power off the *
up: have the * turned up | turn the * up a notch | crank up the * | boost the * | raise the *
down: have the * turned down | turn the * down a notch | tone down the * | lower the *
down: bring down the *
ask: am i right that the * is still going | has the * been shut off | what is the * doing
ask: find out whether the * is running | any idea if the * is on
light_ask: how strong is the *
light_up_hint: i am squinting at my book in the {room} | one can hardly see the floor in the {room}
light_down_hint: the glare in the {room} hurts my eyes | the * is blinding
light_on_hint: let us have the * in the {room}
heat_ask: what temperature has the *
heat_up_hint: my toes are icicles in the {room} | everybody is shivering in the {room}
heat_down_hint: we are being roasted in the {room} | i am sweating in the {room}
heat_off_hint: the * is a waste of gas today
sound_ask: what volume has the *
sound_up_hint: i keep missing words of the * | the * is hardly a whisper
sound_down_hint: the * drowns out our talk | the neighbours complain about the *
sound_off_hint: enough of the * for today
say: i need you to {do} | do me a favour and {do} | would it be possible to {do}
say: go ahead and {do} | {do} for us, will you | how about you {do}
say: it is nearly midnight already, so {do} | over in the {room}, {do} | i think you should {do}
say: the {other} can stay as it is, just {do} | {do} but keep your hands off the {other}
say: rather than the {other}, {do} | first i wanted to {undo}, but no, {do}
say: now that the {other} is off, {do}
question: never mind the {other}, {do} | quick question, {do} | {do}, i mean in the {room}
question: i do not care about the {other}, {do}
later: {time}, {do} | wait, and {time} {do} | not yet, but {time} {do} | {do}, not now but {time}
cancel: scrap the plan to {do} {time} | i changed my mind, no need to {do} {time}
cancel: call it off, you no longer have to {do} {time} | delete my reminder to {do} {time}
opener: okay | look | er | right | computer
"""

_CAR = """
lamp: headlight | map light | cabin light | fog light | torch | brake light | roof light
lamp: full beam | ambient light
seat: seat heater | air conditioning | blower | defroster | steering wheel heater | climate control
seat: rear window heater | foot warmer | fan
audio: car radio | audiobook | news | navigation voice | ringtone | call | album | amplifier
audio: traffic report | bass | voice assistant
screen: display | dashboard screen | mirror camera | map | phone screen | tablet
wiper: wiper | rear wiper | washer | rain sensor
room: back seat | front | driver seat | passenger side | boot | third row | car | cockpit | rear
time: when we arrive | once we are out of the tunnel | as soon as it rains | after the next exit
time: in half an hour | on the way home | tonight | at nine | by the time we reach the coast
time: ten minutes from now | tomorrow at six | when the children wake up | after the meeting
on: turn on the * | switch the * on | get the * going | activate the * | bring the * to life
on: start the * | put the * on | enable the * | wake the * | let the * run
off: turn off the * | switch the * off | shut down the * | deactivate the * | cut the *
off: stop the * | disable the * | put the * out | end the *
up: turn up the * | crank up the * | raise the * | increase the * | put the * on a higher level
up: move the * up | add a bit to the *
down: turn down the * | ease off the * | take the * down a notch | reduce the * | lower the *
down: move the * down | put the * on a lower level | decrease the *
ask: is the * on | what is the * doing | is the * off | find out whether the * is active
ask: any idea if the * is up | how far up is the * | did i leave the * on | does the * work
ask: what is the * set to | check the * | how high is the *
lamp_up_hint: i can hardly see the road from the {room} | it is pitch black in the {room}
lamp_up_hint: brighten the {room} | it is gloomy in the {room}
lamp_down_hint: the * dazzles everybody | too bright in the {room}
lamp_on_hint: nobody can see a thing in the {room}
lamp_off_hint: the * empties the battery
seat_up_hint: my hands are frozen in the {room} | it is chilly in the {room}
seat_down_hint: it is boiling in the {room} | it is stuffy in the {room}
seat_on_hint: it is time for the * in the {room}
seat_off_hint: the * is a waste of fuel
audio_up_hint: i can barely hear the * | nobody understands the * in the {room}
audio_down_hint: the * is deafening | everybody complains about the *
audio_on_hint: i would love to hear the *
audio_off_hint: i am tired of the * | the children sleep, no more *
screen_up_hint: i can not read the * in the sun
screen_down_hint: the * dazzles me at night
wiper_up_hint: it is pouring and the * is too slow
wiper_down_hint: it hardly rains, the * is too fast
say: {do} | please {do} | could you {do} | i want you to {do} | be so kind and {do}
say: the {other} is fine, {do} | {do} but do not touch the {other} | {do} in the {room}
say: i did not say {undo}, i said {do} | instead of the {other}, {do} | not the {other}, {do}
say: it is late, so {do} | do not {undo}, {do} | leave the {other} alone and {do}
say: the {other} is running, now {do} | for the {room}, {do}
question: {do} | just asking, {do} | forget the {other}, {do} | tell me, {do}
question: {do}, in the {room}
later: {do} {time} | {time} {do} | wait until i say so, and {do} {time} | set a timer to {do} {time}
later: remember to {do} {time} | {do}, but not before {time}
cancel: do not {do} {time} | drop the plan to {do} {time} | i thought again, do not {do} {time}
cancel: it is no longer necessary to {do} {time} | forget about the * {time}
opener: hello car | okay | er | listen
"""

_RECIPE = """\
# A recipe: everything a run is asked to do. Paths are relative to this file; every key is also an
# option, which overrides it: edgeprune compress recipe.yaml --budget 25%

model: demo            # the small encoder of the `demo` extra; or a folder, or a hub name
task: task             # 300 commands to a home assistant, 17 intents; 1,000 to test on
auxiliary: auxiliary   # 3,000 requests in a car: a related task to learn from

budget: ["50%"]        # of the unpruned model's latency; "5ms" or "5ms@p95" say it in milliseconds
target: ort            # where latency counts; `edgeprune targets list` shows what is usable here
sequence: 32           # tokens a row is measured and cut at: commands are short

floor: 0.9             # at least so much of the unpruned model's score must be left
effort: quick          # then standard, thorough: longer search and training
out: run               # the run folder: report, bundle, and what a second call need not redo
"""


@dataclass(frozen=True)
class Wording:
    """What one split can say, how often by a hint or after an opener, and how often mistyped."""

    things: tuple[str, ...]
    slots: Mapping[str, Sequence[str]]
    rows: int
    hints: float = 0.15
    openers: float = 0.1
    typos: float = 0.0

    @property
    def labels(self) -> list[str]:
        return [f"{thing}_{action}" for thing in self.things for action in _ACTIONS] + [*_PLANS]


def _slots(text: str) -> dict[str, list[str]]:
    slots: dict[str, list[str]] = {}
    for line in text.strip().splitlines():
        name, _, alternatives = line.partition(": ")
        slots.setdefault(name, []).extend(alternatives.split(" | "))
    return slots


_HOME = ("light", "heat", "sound")
TASK = {
    "train": Wording(_HOME, _slots(_TRAIN), rows=300),
    "validation": Wording(_HOME, _slots(_VALIDATION), rows=200, typos=0.025),
    "test": Wording(_HOME, _slots(_TEST), rows=1000, openers=0.3, typos=0.04),
}
AUXILIARY = Wording(
    ("lamp", "seat", "audio", "screen", "wiper"), _slots(_CAR), rows=3000, openers=0.2, typos=0.04
)


def write_demo(folder: Path, seed: int = 0) -> Path:
    """Write the task, the auxiliary task and a commented recipe; returns the recipe's path.

    The same seed writes the same bytes. Raises InputError for a folder that is not empty,
    ResourceError for one that cannot be written.
    """
    try:
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise InputError(
                f"demo folder {folder}",
                why="exists and is not an empty folder",
                remedy="name a new one",
            )
        return _write(folder, seed)
    except OSError as error:
        raise ResourceError(
            f"demo folder {folder}",
            why=error.strerror or "cannot be written",
            remedy="name a folder that can be written to",
        ) from None


def _write(folder: Path, seed: int) -> Path:
    taken: set[str] = set()  # over all files: no text stands in two of them
    for split, wording in TASK.items():
        rng = random.Random(f"{seed} {split}")
        _write_rows(folder / "task", split, wording, rng, taken)
    _write_rows(folder / "auxiliary", "train", AUXILIARY, random.Random(f"{seed} car"), taken)
    # Last, so that where there is a recipe its data is whole.
    recipe = folder / "recipe.yaml"
    recipe.write_text(_RECIPE, encoding="utf-8")
    return recipe


def _write_rows(
    folder: Path, split: str, wording: Wording, rng: random.Random, taken: set[str]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(_rows(wording, rng, taken))
    rng.shuffle(rows)
    lines = [json.dumps({"text": text, "label": label}) + "\n" for text, label in rows]
    (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    labels = json.dumps({"labels": wording.labels}, indent=1) + "\n"
    (folder / "labels.json").write_text(labels, encoding="utf-8")


def _rows(wording: Wording, rng: random.Random, taken: set[str]) -> Iterator[tuple[str, str]]:
    """New texts and their labels, the labels in turn."""
    for label in islice(cycle(wording.labels), wording.rows):
        text = _text(wording, label, rng)
        while text in taken:
            text = _text(wording, label, rng)
        taken.add(text)
        yield text, label


def _text(wording: Wording, label: str, rng: random.Random) -> str:
    text = _plan(wording, label, rng) if label in _PLANS else _request(wording, label, rng)
    if rng.random() < wording.openers:
        text = f"{rng.choice(wording.slots['opener'])} {text}"
    return " ".join(_mistyped(word, wording.typos, rng) for word in text.split())


def _plan(wording: Wording, label: str, rng: random.Random) -> str:
    thing, action = rng.choice(wording.things), rng.choice([*_OPPOSITE])
    return _filled(rng.choice(wording.slots[label]), wording, thing, action, rng)


def _request(wording: Wording, label: str, rng: random.Random) -> str:
    thing, action = label.split("_")
    hints = wording.slots.get(f"{label}_hint")
    if hints and rng.random() < wording.hints:
        return _filled(rng.choice(hints), wording, thing, action, rng)
    frames = wording.slots["question" if action == "ask" else "say"]
    return _filled(rng.choice(frames), wording, thing, action, rng)


def _filled(frame: str, wording: Wording, thing: str, action: str, rng: random.Random) -> str:
    """The frame with every slot filled, for a thing that is meant and what is to happen to it."""

    def fill(slot: re.Match[str]) -> str:
        match slot[1]:
            case "do":
                return _phrase(wording, thing, action, rng)
            case "undo":
                return _phrase(wording, thing, _OPPOSITE[action], rng)
            case "other":
                others = [name for name in wording.things if name != thing]
                return rng.choice(wording.slots[rng.choice(others)])
            case name:
                return rng.choice(wording.slots[name])

    return _SLOT.sub(fill, frame).replace("*", rng.choice(wording.slots[thing]))


def _phrase(wording: Wording, thing: str, action: str, rng: random.Random) -> str:
    phrases = [*wording.slots[action], *wording.slots.get(f"{thing}_{action}", ())]
    return rng.choice(phrases)


def _mistyped(word: str, chance: float, rng: random.Random) -> str:
    """The word, or by chance with two letters swapped or one dropped; short words stay."""
    if len(word) < 5 or rng.random() >= chance:
        return word
    at = rng.randrange(1, len(word) - 2)
    swapped = word[at + 1] + word[at] if rng.random() < 0.5 else word[at]
    return word[:at] + swapped + word[at + 2 :]
