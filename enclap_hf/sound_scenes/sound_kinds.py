"""The table of sound kinds: how each is synthesised, how long it lasts, how it may be combined and worded.

Wordings come in pairs, a clause ("a dog barks") and a phrase ("a dog barking"), for the caption grammar to place. Every
wording of a kind holds a word that its `keyword` pattern finds and that no other kind's pattern does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import sounds_of_machines as machines
from . import sounds_of_nature as nature
from . import sounds_of_people as people
from .sound_synthesis import Sound, repeated, steady


@dataclass(frozen=True)
class SoundKind:
    """One kind of sound.

    Attributes:
        name: key in `SOUND_KINDS`.
        family: alarm, vehicle, tool, nature, animal, people, home or music.
        synthesize: (rng, duration_s, count=None) -> `Sound` at 24 kHz; count is used by countable kinds only.
        clauses: finite wordings, lower case.
        phrases: the same wordings with an -ing form, one a clause.
        keyword: regular expression that finds this kind, and no other, in a caption.
        mask_group: kinds of one group hide each other when they sound together.
        countable: made of separate strokes whose number can be heard.
        continuous: can sound through a whole scene as its background.
        counts: lowest and highest number of strokes, for countable kinds.
        period_s: shortest and longest time between two strokes, for countable kinds.
        min_s: shortest time in which the kind can be recognised.
        max_s: longest time one event lasts; infinite for sounds that can go on.
    """

    name: str
    family: str
    synthesize: Callable[..., Sound]
    clauses: tuple[str, ...]
    phrases: tuple[str, ...]
    keyword: str
    mask_group: str
    countable: bool = False
    continuous: bool = False
    counts: tuple[int, int] = (1, 1)
    period_s: tuple[float, float] = (0.0, 0.0)
    min_s: float = 1.2
    max_s: float = float("inf")

    def longest_s(self, count: int) -> float:
        """Return the most time in s that `count` strokes take."""
        return self.period_s[1] * (count - 1) * 1.08 + self.min_s


SOUND_KINDS: dict[str, SoundKind] = {}


def _split(wordings: tuple[str, ...]) -> dict:
    """Split 'subject verb -> subject verb-ing' strings into clauses and phrases."""
    pairs = [wording.split(" -> ") for wording in wordings]
    return {"clauses": tuple(pair[0] for pair in pairs), "phrases": tuple(pair[1] for pair in pairs)}


def _sound(name: str, family: str, make: Callable, keyword: str, group: str, *wordings: str, **options: Any) -> None:
    """Enter a kind without counted strokes."""
    SOUND_KINDS[name] = SoundKind(
        name, family, steady(make), keyword=keyword, mask_group=group, **_split(wordings), **options
    )


def _counted(
    name: str,
    family: str,
    make: Callable,
    keyword: str,
    group: str,
    *wordings: str,
    period_s: tuple[float, float],
    **options: Any,
) -> None:
    """Enter a kind made of strokes whose number is exact."""
    options = {"counts": (2, 4), **options}
    SOUND_KINDS[name] = SoundKind(
        name,
        family,
        repeated(make, period_s),
        keyword=keyword,
        mask_group=group,
        countable=True,
        period_s=period_s,
        **_split(wordings),
        **options,
    )


# Alarms and bells.
_sound("alarm_clock", "alarm", machines.alarm_clock, r"\balarm", "beep",
       "an alarm clock beeps -> an alarm clock beeping",
       "an alarm goes off -> an alarm going off",
       "a bedside alarm beeps fast -> a bedside alarm beeping fast")  # fmt: skip
_sound("siren", "alarm", machines.siren, r"\bsirens?\b", "call",
       "a siren wails -> a siren wailing",
       "a police siren sounds -> a police siren sounding",
       "an ambulance siren rises and falls -> an ambulance siren rising and falling", min_s=1.8)  # fmt: skip
_counted("car_horn", "alarm", machines.car_horn, r"\bhorns?\b|\bhonk", "call",
         "a car horn honks -> a car horn honking",
         "a driver sounds the horn -> a driver sounding the horn",
         "a car honks -> a car honking", period_s=(0.62, 0.85), min_s=0.5)  # fmt: skip
_counted("bicycle_bell", "alarm", machines.bicycle_bell, r"\bbicycle|\bbike\b", "bell",
         "a bicycle bell rings -> a bicycle bell ringing",
         "a bike bell trills -> a bike bell trilling",
         "someone rings a bicycle bell -> someone ringing a bicycle bell",
         period_s=(0.95, 1.2), min_s=0.85, counts=(1, 4))  # fmt: skip
_counted("church_bell", "alarm", machines.church_bell, r"\bchurch\b|\btoll", "bell",
         "a church bell tolls -> a church bell tolling",
         "a church bell rings -> a church bell ringing",
         "a large bell tolls -> a large bell tolling", period_s=(1.2, 1.6), min_s=1.9, counts=(1, 4))  # fmt: skip
_sound("telephone", "alarm", machines.telephone, r"\b(?:tele)?phone", "bell",
       "a telephone rings -> a telephone ringing",
       "an old phone rings -> an old phone ringing",
       "a phone is ringing -> a phone ringing", min_s=1.3)  # fmt: skip
_counted("doorbell", "alarm", machines.doorbell, r"\bdoorbell|\bdoor chime", "bell",
         "a doorbell rings -> a doorbell ringing",
         "a doorbell chimes -> a doorbell chiming",
         "a door chime sounds -> a door chime sounding", period_s=(1.5, 1.8), min_s=1.45, counts=(1, 3))  # fmt: skip

# Vehicles.
_sound("engine", "vehicle", machines.engine, r"\bengines?\b", "drone",
       "an engine idles -> an engine idling",
       "an engine runs -> an engine running",
       "a truck engine rumbles -> a truck engine rumbling", continuous=True)  # fmt: skip
_sound("motorcycle", "vehicle", machines.motorcycle, r"\bmotor(?:cycle|bike)", "drone",
       "a motorcycle revs -> a motorcycle revving",
       "a motorbike revs up -> a motorbike revving up",
       "a motorcycle roars -> a motorcycle roaring", min_s=1.6)  # fmt: skip
_sound("train", "vehicle", machines.train, r"\btrains?\b(?! whistle)|\brail", "drone",
       "a train passes -> a train passing",
       "a train clatters along -> a train clattering along",
       "a train rolls over the rails -> a train rolling over the rails", min_s=1.8, continuous=True)  # fmt: skip
_counted("train_whistle", "vehicle", machines.train_whistle, r"\b(?:train|steam|its) whistle|\blocomotive", "call",
         "a train whistle blows -> a train whistle blowing",
         "a steam whistle sounds -> a steam whistle sounding",
         "a locomotive blows its whistle -> a locomotive blowing its whistle",
         period_s=(1.35, 1.6), min_s=1.2, counts=(1, 3))  # fmt: skip
_sound("helicopter", "vehicle", machines.helicopter, r"\bhelicopter|\bchopper", "drone",
       "a helicopter flies -> a helicopter flying",
       "a helicopter hovers -> a helicopter hovering",
       "a chopper flies overhead -> a chopper flying overhead", continuous=True)  # fmt: skip

# Tools and machines.
_sound("vacuum_cleaner", "tool", machines.vacuum_cleaner, r"\bvacuum", "noise",
       "a vacuum cleaner runs -> a vacuum cleaner running",
       "a vacuum cleaner hums -> a vacuum cleaner humming",
       "someone vacuums the floor -> someone vacuuming the floor", continuous=True)  # fmt: skip
_sound("drill", "tool", machines.drill, r"\bdrill", "drone",
       "an electric drill whirs -> an electric drill whirring",
       "someone drills into a wall -> someone drilling into a wall",
       "a drill runs -> a drill running", min_s=1.4)  # fmt: skip
_sound("sawing", "tool", machines.hand_saw, r"\bsaw(?:s|ing)?\b", "noise",
       "someone saws wood -> someone sawing wood",
       "a hand saw cuts wood -> a hand saw cutting wood",
       "a saw cuts through a board -> a saw cutting through a board", min_s=1.3)  # fmt: skip
_counted("hammering", "tool", machines.hammer, r"\bhammer|\bnails?\b", "impulse",
         "a hammer strikes -> a hammer striking",
         "someone hammers a nail -> someone hammering a nail",
         "someone hits a nail -> someone hitting a nail", period_s=(0.5, 0.68), min_s=0.4)  # fmt: skip
_sound("typing", "tool", machines.typing, r"\btyp(?:es|ing)\b|\bkeyboard|\bkeys\b", "impulse",
       "someone types -> someone typing",
       "a person types on a keyboard -> a person typing on a keyboard",
       "keyboard keys click -> keyboard keys clicking")  # fmt: skip
_sound("clock_ticking", "home", machines.clock_ticking, r"\btick", "impulse",
       "a clock ticks -> a clock ticking",
       "a wall clock is ticking -> a wall clock ticking",
       "a clock ticks steadily -> a clock ticking steadily", min_s=1.8)  # fmt: skip
_sound("radio_static", "home", machines.radio_static, r"\bstatic\b|\bradio\b", "noise",
       "a radio hisses with static -> a radio hissing with static",
       "radio static hisses -> radio static hissing",
       "a radio searches for a station -> a radio searching for a station", min_s=1.5, continuous=True)  # fmt: skip

# Weather, water and fire.
_sound("rain", "nature", nature.rain, r"\brain", "noise",
       "rain falls -> rain falling",
       "it is raining -> rain coming down",
       "rain pours down -> rain pouring down", continuous=True)  # fmt: skip
_sound("wind", "nature", nature.wind, r"\bwind\b|\bwinds\b|\bgust", "drone",
       "wind blows -> wind blowing",
       "the wind howls -> the wind howling",
       "a strong wind blows -> a strong wind blowing", min_s=2.0, continuous=True)  # fmt: skip
_sound("thunder", "nature", nature.thunder, r"\bthunder", "drone",
       "thunder rumbles -> thunder rumbling",
       "thunder rolls -> thunder rolling",
       "thunder cracks and rumbles -> thunder cracking and rumbling", min_s=1.8, max_s=3.5)  # fmt: skip
_sound("ocean_waves", "nature", nature.ocean_waves, r"\bwaves?\b|\bsurf\b", "noise",
       "waves break on the shore -> waves breaking on the shore",
       "ocean waves roll in -> ocean waves rolling in",
       "waves crash -> waves crashing", min_s=2.2, continuous=True)  # fmt: skip
_sound("stream", "nature", nature.stream, r"\bstream|\bbrook|\bcreek", "water",
       "a stream gurgles -> a stream gurgling",
       "a brook babbles -> a brook babbling",
       "water flows in a creek -> water flowing in a creek", continuous=True)  # fmt: skip
_counted("water_dripping", "home", nature.water_dripping, r"\bdrip|\bdrops?\b", "water",
         "water drips -> water dripping",
         "a tap drips -> a tap dripping",
         "a drop of water falls -> a drop of water falling", period_s=(0.55, 0.8), min_s=0.4)  # fmt: skip
_sound("fire", "nature", nature.fire, r"\bfires?\b|\bcampfire|\bflames?\b", "crackle",
       "a fire crackles -> a fire crackling",
       "a campfire burns -> a campfire burning",
       "flames crackle -> flames crackling", min_s=1.5, continuous=True)  # fmt: skip

# Animals.
_sound("birds", "animal", nature.birds, r"\bbirds?\b|\bsongbird", "high",
       "birds chirp -> birds chirping",
       "a bird sings -> a bird singing",
       "birds are singing -> birds singing", continuous=True)  # fmt: skip
_counted("dog", "animal", nature.dog, r"\bdogs?\b|\bbark", "voice",
         "a dog barks -> a dog barking",
         "a dog is barking -> a dog that barks",
         "a large dog barks -> a large dog barking", period_s=(0.45, 0.65), min_s=0.25)  # fmt: skip
_counted("cat", "animal", nature.cat, r"\bcats?\b|\bmeow|\bkitten", "voice",
         "a cat meows -> a cat meowing",
         "a kitten meows -> a kitten meowing",
         "a cat cries out -> a cat crying out", period_s=(1.05, 1.3), min_s=0.9, counts=(1, 4))  # fmt: skip
_counted("owl", "animal", nature.owl, r"\bowls?\b|\bhoot", "call",
         "an owl hoots -> an owl hooting",
         "an owl calls -> an owl calling",
         "an owl hoots softly -> an owl hooting softly", period_s=(0.75, 0.95), min_s=0.75)  # fmt: skip
_sound("rooster", "animal", nature.rooster, r"\brooster|\bcrow(?:s|ing)\b", "voice",
       "a rooster crows -> a rooster crowing",
       "a rooster calls -> a rooster calling",
       "a rooster crows loudly -> a rooster crowing loudly", min_s=1.5, max_s=1.75)  # fmt: skip
_sound("frogs", "animal", nature.frogs, r"\bfrogs?\b|\bcroak", "croak",
       "frogs croak -> frogs croaking",
       "a frog croaks -> a frog croaking",
       "frogs are calling -> frogs calling", min_s=1.3, continuous=True)  # fmt: skip
_sound("crickets", "animal", nature.crickets, r"\bcrickets?\b", "high",
       "crickets chirp -> crickets chirping",
       "crickets sing -> crickets singing",
       "a cricket chirps -> a cricket chirping", continuous=True)  # fmt: skip
_sound("bee", "animal", nature.bee, r"\bbees?\b|\bbuzz", "drone",
       "a bee buzzes -> a bee buzzing",
       "bees buzz around -> bees buzzing around",
       "a bee flies past -> a bee flying past", min_s=1.5)  # fmt: skip
_counted("cow", "animal", nature.cow, r"\bcows?\b|\bmoo", "voice",
         "a cow moos -> a cow mooing",
         "a cow is mooing -> a cow that moos",
         "a cow calls -> a cow calling", period_s=(1.6, 1.9), min_s=1.5, counts=(1, 3))  # fmt: skip
_sound("horse", "animal", nature.horse, r"\bhorses?\b|\bgallop|\bhoo[fv]", "impulse",
       "a horse gallops -> a horse galloping",
       "a horse runs -> a horse running",
       "hooves clatter -> hooves clattering", min_s=1.4)  # fmt: skip

# People and the home.
_sound("footsteps", "people", people.footsteps, r"\bfootsteps?\b|\bwalk", "impulse",
       "footsteps crunch on gravel -> footsteps crunching on gravel",
       "someone walks -> someone walking",
       "a person walks on gravel -> a person walking on gravel", min_s=1.8)  # fmt: skip
_counted("knocking", "people", people.knocking, r"\bknock", "impulse",
         "someone knocks -> someone knocking",
         "a person knocks on a door -> a person knocking on a door",
         "someone knocks on wood -> someone knocking on wood", period_s=(0.24, 0.36), min_s=0.25)  # fmt: skip
_sound("glass_breaking", "home", people.glass_breaking, r"\bglass\b|\bwindow\b", "crackle",
       "glass breaks -> glass breaking",
       "a glass shatters -> a glass shattering",
       "a window breaks -> a window breaking", min_s=1.0, max_s=1.8)  # fmt: skip
_sound("applause", "people", people.applause, r"\bapplau|\bclap(?!s? of thunder)", "crackle",
       "people clap -> people clapping",
       "a crowd applauds -> a crowd applauding",
       "an audience claps -> an audience clapping", continuous=True)  # fmt: skip
_sound("whistling", "people", people.whistling, r"(?<!train )(?<!steam )(?<!its )\bwhistl", "melody",
       "a person whistles -> a person whistling",
       "someone whistles a tune -> someone whistling a tune",
       "a man whistles -> a man whistling")  # fmt: skip
_sound("man_talking", "people", people.man_talking, r"\btalk|\bspeak|\bspeech|\bvoice", "voice",
       "a man talks -> a man talking",
       "a man speaks -> a man speaking",
       "a deep voice speaks -> a deep voice speaking", min_s=1.5)  # fmt: skip
_sound("laughing", "people", people.laughing, r"\blaugh", "voice",
       "a woman laughs -> a woman laughing",
       "someone laughs -> someone laughing",
       "a person laughs out loud -> a person laughing out loud", min_s=1.3)  # fmt: skip
_sound("baby_crying", "people", people.baby_crying, r"\bbaby|\binfant", "voice",
       "a baby cries -> a baby crying",
       "an infant cries -> an infant crying",
       "a baby wails -> a baby wailing", min_s=1.6)  # fmt: skip
_sound("snoring", "people", people.snoring, r"\bsnor", "drone",
       "someone snores -> someone snoring",
       "a man snores -> a man snoring",
       "a person is snoring -> a person snoring", min_s=1.8)  # fmt: skip
_sound("heartbeat", "people", people.heartbeat, r"\bheart", "low",
       "a heart beats -> a heart beating",
       "a heartbeat thumps -> a heartbeat thumping",
       "a heart pounds -> a heart pounding", min_s=1.9)  # fmt: skip
_sound("bouncing_ball", "home", people.bouncing_ball, r"\bball\b", "impulse",
       "a ball bounces -> a ball bouncing",
       "a rubber ball bounces -> a rubber ball bouncing",
       "someone bounces a ball -> someone bouncing a ball", min_s=1.5, max_s=2.3)  # fmt: skip

# Music.
_sound("piano", "music", people.piano, r"\bpiano|\bpianist", "melody",
       "a piano plays -> a piano playing",
       "someone plays the piano -> someone playing the piano",
       "a pianist plays a tune -> a pianist playing a tune", min_s=1.5)  # fmt: skip
_sound("guitar", "music", people.guitar, r"\bguitar", "melody",
       "a guitar is strummed -> a guitar being strummed",
       "someone strums a guitar -> someone strumming a guitar",
       "a guitar plays -> a guitar playing", min_s=1.4)  # fmt: skip
_sound("violin", "music", people.violin, r"\bviolin|\bfiddle", "melody",
       "a violin plays -> a violin playing",
       "someone plays the violin -> someone playing the violin",
       "a fiddle plays a tune -> a fiddle playing a tune", min_s=1.4)  # fmt: skip
_sound("drums", "music", people.drums, r"\bdrum", "impulse",
       "drums play a beat -> drums playing a beat",
       "a drummer plays -> a drummer playing",
       "someone plays the drums -> someone playing the drums", min_s=1.6)  # fmt: skip
_sound("music_box", "music", people.music_box, r"\bmusic box", "melody",
       "a music box plays -> a music box playing",
       "a music box tinkles -> a music box tinkling",
       "someone opens a music box -> someone opening a music box")  # fmt: skip
