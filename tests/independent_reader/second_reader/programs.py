"""The rules of programs (P1 to P16): shapes and types of all arrays before anything runs."""

from math import prod
from typing import Any, NamedTuple

from .document import Parts, every, need

TYPES = {"real": "float32", "integer": "int32", "pixels": "uint8"}
BLANKS = "\t\n\r \u00a0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(8192, 8203)))
INPUTS = {"image_to_video": ["picture"], "video_to_video": ["clip"], "upscale": ["clip"]}


class Known(NamedTuple):
    """What a name stands for: an array of a type, a "prompt" or a "counter"."""

    type: str
    shape: tuple[int, ...] = ()
    also: tuple[str, ...] = ()  # "number" and "counter", for inputs
    span: tuple[int, int] = (0, 0)  # of a counter

    def resized(self, axis: int, size: int) -> "Known":
        return Known(self.type, (*self.shape[:axis], size, *self.shape[axis + 1 :]))

    def equals(self, shape: Any) -> bool:
        """Whether sizes are equal, those of 1 left out (P5)."""
        return [size for size in self.shape if size != 1] == [size for size in shape if size != 1]


Scope = dict[str, Known]


class Program:
    """Carries a program out on shapes; `needs` then says what it needs of the bundle."""

    def __init__(self, manifest: Parts, program: Parts, at: str) -> None:
        self.manifest, tables = manifest, manifest["tables"]
        self.names, self.used = set(tables), set[str]()
        self.needs = set[tuple[str, str]]()
        self.done, self.times, self.level = 0, 1, 0
        need(len(list(every(program["operations"]))) <= 4096, "D12", at)
        scope = {name: Known(t["dtype"], tuple(t["shape"])) for name, t in tables.items()}
        self.take_inputs(program["task"], program["inputs"], f"{at}.inputs", scope)
        self.carry_out(program["operations"], f"{at}.operations", scope)
        video = *(program["video"][key] for key in ("frames", "height", "width")), 3
        need(prod(video) <= 2**30, "G6", f"{at}.video")
        clip = self.get(scope, program["output"], "P5", f"{at}.output", "uint8", "float32")
        need(clip.shape == video, "P5", f"{at}.output")
        need(self.names <= self.used | tables.keys(), "P16", at)
        self.needs |= {("tables", name) for name in self.used & tables.keys()}

    def take_inputs(self, task: str, inputs: Parts, at: str, scope: Scope) -> None:
        """What a caller gives (P1 to P3)."""
        kinds = [value["kind"] for value in inputs.values()]
        pictures = [kind for kind in kinds if kind in ("picture", "clip")]
        prompts = (1,) if task == "text_to_video" else (0, 1)
        need(pictures == INPUTS.get(task, []) and kinds.count("prompt") in prompts, "P1", at)
        need(kinds.count("negative_prompt") <= kinds.count("prompt"), "P1", at)
        for name, value in inputs.items():
            here, known = f"{at}.{name}", Known("prompt")
            if value["kind"] == "negative_prompt":
                known = Known("prompt", (), ("blank",))
            if value["kind"] in ("picture", "clip"):
                known = Known("uint8", (value.get("frames", 1), value["height"], value["width"], 3))
            elif value["kind"] == "number":
                low, high, default = value["minimum"], value["maximum"], value["default"]
                need(low <= high, "P2", f"{here}.minimum")
                need(low <= default <= high, "P2", f"{here}.default")
                need(name != "fps" or (low >= 0.1 and high <= 240), "P3", here)
                known = Known("float32", (1,), ("number",))
                if value["whole"]:
                    need(all(x == int(x) for x in (low, high, default)), "P2", here)
                    known = Known("float32", (1,), ("number", "counter"), (low, high))
            self.define(scope, name, known, here)

    def define(self, scope: Scope, name: str, known: Known, at: str) -> None:
        """Gives a name once (P4)."""
        need(name not in self.names, "P4", at)
        need(prod(known.shape) <= 2**30, "G6", at)
        self.names.add(name)
        scope[name] = known

    def get(self, scope: Scope, name: str, rule: str, at: str, *kinds: str) -> Known:
        """What a name stands for, which is of one of these kinds, or any array."""
        known = scope.get(name, Known(""))
        need({known.type, *known.also} & {*(kinds or TYPES.values())}, rule, at)
        self.used.add(name)
        return known if "counter" in kinds else Known(known.type, known.shape)

    def part(self, kind: str, name: str, rule: str, at: str) -> Parts:
        """A part of the bundle."""
        need(name in self.manifest[kind], rule, at)
        self.needs.add((kind, name))
        return self.manifest[kind][name]

    def carry_out(self, operations: list[Parts], at: str, scope: Scope) -> None:
        """A list of operations, each a method of this class."""
        self.done += self.times * len(operations)
        need(self.done <= 2**20, "P7", at)
        for i, op in enumerate(operations):
            getattr(self, op["op"])(op, f"{at}[{i}]", scope)

    def tokenize(self, op: Parts, at: str, scope: Scope) -> None:
        tokenizer = self.part("tokenizers", op["tokenizer"], "P9", f"{at}.tokenizer")
        said = scope.get(op["input"], Known("", (), ("blank",)))
        if op["input"] is not None:
            self.get(scope, op["input"], "P9", f"{at}.input", "prompt")
        if "blank" in said.also and tokenizer["kind"] == "wordpiece":
            need((op["before"] + op["after"]).strip(BLANKS), "P9", f"{at}.input")
        need(len(op["before"] + op["after"]) <= 4096, "P9", f"{at}.before")
        tokens = Known("int32", (1, tokenizer["max_length"]))
        self.define(scope, op["output"], tokens, at)
        if op["mask"] is not None:
            self.define(scope, op["mask"], tokens, at)
            self.used.add(op["mask"])

    def numbers(self, op: Parts, at: str, scope: Scope) -> None:
        for value in op["values"]:
            if isinstance(value, dict):
                self.get(scope, value["input"], "P10", at, "number")
        self.define(scope, op["output"], Known("float32", (len(op["values"]),)), at)

    def noise(self, op: Parts, at: str, scope: Scope) -> None:
        self.define(scope, op["output"], Known("float32", tuple(op["shape"])), at)

    def run(self, op: Parts, at: str, scope: Scope) -> None:
        component = self.part("components", op["component"], "P11", f"{at}.component")
        takes, gives = (
            {t["name"]: Known(TYPES[t["type"]], tuple(t["shape"])) for t in component[side]}
            for side in ("inputs", "outputs")
        )
        need(op["inputs"].keys() == takes.keys(), "P11", f"{at}.inputs")
        need(op["outputs"].keys() <= gives.keys(), "P11", f"{at}.outputs")
        for tensor, name in op["inputs"].items():
            here, want = f"{at}.inputs.{tensor}", takes[tensor]
            array = self.get(scope, name, "P5", here)
            need(array.type == want.type and array.equals(want.shape), "P11", here)
        for tensor, name in op["outputs"].items():
            self.define(scope, name, gives[tensor], at)

    def linear(self, op: Parts, at: str, scope: Scope) -> None:
        names = [term["array"] for term in op["terms"]]
        arrays = [self.get(scope, name, "P5", at, "float32", "uint8") for name in names]
        need(all(array.equals(arrays[0].shape) for array in arrays), "P5", at)
        for term in op["terms"]:
            if isinstance(term["scale"], str):
                scale = self.get(scope, term["scale"], "P5", at, "float32")
                need(prod(scale.shape) == 1, "P5", at)
        self.define(scope, op["output"], Known("float32", arrays[0].shape), at)

    def take(self, op: Parts, at: str, scope: Scope) -> None:
        array, axis, start = self.get(scope, op["array"], "P5", at), op["axis"], op["start"]
        need(axis < len(array.shape), "P12", at)
        index: Parts = start if isinstance(start, dict) else {"start": start, "steps": {}}
        first = last = index["start"]
        for name, step in index["steps"].items():
            counter = self.get(scope, name, "P8", f"{at}.start", "counter")
            ends = [step * end for end in counter.span]
            first, last = first + min(ends), last + max(ends)
        last += (op["size"] - 1) * op["stride"]
        need(first >= 0 and last < array.shape[axis], "P8", f"{at}.start")
        self.define(scope, op["output"], array.resized(axis, op["size"]), at)

    def concat(self, op: Parts, at: str, scope: Scope) -> None:
        arrays, axis = [self.get(scope, name, "P5", at) for name in op["arrays"]], op["axis"]
        need(axis < len(arrays[0].shape), "P12", at)
        need(all(len(array.shape) == len(arrays[0].shape) for array in arrays), "P5", at)
        need(len({array.resized(axis, 0) for array in arrays}) == 1, "P5", at)
        size = sum(array.shape[axis] for array in arrays)
        self.define(scope, op["output"], arrays[0].resized(axis, size), at)

    def resample(self, op: Parts, at: str, scope: Scope) -> None:
        array, factor = self.get(scope, op["array"], "P5", at, "float32"), op["factor"]
        *rest, height, width = array.shape if len(array.shape) >= 2 else (0, 0)
        nearest, even = op["method"] == "nearest", height % factor == width % factor == 0
        need(len(array.shape) >= 2 and (nearest or even), "P5", at)
        sizes = [size * factor if nearest else size // factor for size in (height, width)]
        self.define(scope, op["output"], Known("float32", (*rest, *sizes)), at)

    def sample(self, op: Parts, at: str, scope: Scope) -> None:
        sampler = self.part("samplers", op["sampler"], "P5", f"{at}.sampler")
        steps = max(map(int, sampler["schedules"]))
        x, inner = self.get(scope, op["start"], "P5", f"{at}.start", "float32"), dict(scope)
        need(op["stream"] + steps < 2**32, "P13", f"{at}.stream")
        need(op["shared_axis"] in (None, *range(len(x.shape))), "P13", f"{at}.shared_axis")
        self.define(inner, op["model_input"], x, at)
        self.define(inner, op["timestep"], Known("float32", (1,)), at)
        self.used.add(op["timestep"])
        made = self.repeat(op, at, scope, inner, steps)
        output = self.get(made, op["model_output"], "P13", f"{at}.model_output", "float32")
        need(output.equals(x.shape), "P13", f"{at}.model_output")
        self.define(scope, op["output"], x, at)

    def loop(self, op: Parts, at: str, scope: Scope) -> None:
        carried = [value["output"] for value in op["carried"].values()]
        need(op["collected"] or any(carried), "P15", at)
        made = self.repeat(op, at, scope, dict(scope), op["count"])
        for name, value in op["collected"].items():
            here, axis, overlap = f"{at}.collected.{name}", value["axis"], value["overlap"]
            types = ["float32"] if value["blend"] == "linear" else TYPES.values()
            array = self.get(made, name, "P15", here, *types)
            need(axis < len(array.shape), "P15", here)
            need(2 * overlap <= array.shape[axis], "P15", here)
            size = op["count"] * (array.shape[axis] - overlap) + overlap
            self.define(scope, value["output"], array.resized(axis, size), here)

    def repeat(self, op: Parts, at: str, scope: Scope, inner: Scope, times: int) -> Scope:
        """The operations of a sample or a loop; what they make (P7, P14)."""
        need(self.level < 4, "P7", at)
        self.define(inner, op["index"], Known("counter", span=(0, times - 1)), f"{at}.index")
        self.used.add(op["index"])
        for name, value in op["carried"].items():
            here = f"{at}.carried.{name}"
            self.define(inner, name, self.get(scope, value["start"], "P5", here), here)
        before = set(inner)
        self.level, self.times = self.level + 1, self.times * times
        self.carry_out(op["operations"], f"{at}.operations", inner)
        self.level, self.times = self.level - 1, self.times // times
        made = {name: array for name, array in inner.items() if name not in before}
        for name, value in op["carried"].items():
            here, array = f"{at}.carried.{name}", inner[name]
            following = self.get(made, value["next"], "P14", here, array.type)
            need(following.equals(array.shape), "P14", here)
            if value["output"] is not None:
                self.define(scope, value["output"], array, here)
        return made
