#!/usr/bin/env python3
"""Fails on circles of imports between sibling modules of a crate.

A module imports another when a `use` or a path in it, or in a module below it, leads there; an item
that its parent re-exports leads to the module that defines it. Tests are left out: they may use
everything. Usage: tests/modules.py CRATE_SOURCE_FOLDER…
"""

import re
import sys
from pathlib import Path

# A schema contains rules, and a rule contains schemas (buf.validate).
ALLOWED = {frozenset({"grpc::schema", "grpc::schema::rules"})}
TESTS = {"tests", "testdata"}


def split(text):
    """The items of a comma-separated list, with nested braces intact."""
    items, depth, item = [], 0, ""
    for char in text:
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            items.append(item.strip())
            item = ""
        else:
            item += char
    return [item for item in [*items, item.strip()] if item]


def expand(path):
    """The single paths of a `use` tree."""
    match = re.fullmatch(r"(.*?)\{(.*)\}", path.strip(), re.S)
    if not match:
        return [path.split(" as ")[0].strip()]
    return [match[1].strip() + rest for item in split(match[2]) for rest in expand(item)]


def load(root):
    """The code of each module, without comments, strings and tests, by its path."""
    modules = {}
    for file in root.rglob("*.rs"):
        path = file.relative_to(root).with_suffix("").parts
        if TESTS & set(path) or path == ("main",):
            continue
        code = re.sub(r"//[^\n]*", "", file.read_text())
        code = re.sub(r'"(?:\\.|[^"\\])*"', '""', code, flags=re.S)
        code = re.split(r"#\[cfg\(test\)\]\s*mod \w+ \{", code)[0]
        modules[() if path == ("lib",) else path] = re.sub(
            r"#\[cfg\(test\)\]\s*(?:pub(?:\(\w+\))? )?use [^;]*;", "", code
        )
    return modules


class Crate:
    """The modules of a crate and what they import."""

    def __init__(self, root):
        self.modules = load(root)
        self.uses = {
            module: [
                path
                for use in re.findall(r"\buse\s+([^;]+);", code)
                for path in expand(" ".join(use.split()))
            ]
            for module, code in self.modules.items()
        }

    def descend(self, base, names):
        """Follows names through child modules, and returns what is left of them."""
        while names and base + (names[0],) in self.modules:
            base, names = base + (names[0],), names[1:]
        return base, names

    def target(self, module, path):
        """The module in which a path of `module` ends."""
        first, *names = path.split("::")
        if first == "crate":
            base = ()
        elif first == "self":
            base = module
        elif first == "super":
            base = module[:-1]
            while names and names[0] == "super":
                base, names = base[:-1], names[1:]
        else:
            return None
        base, names = self.descend(base, names)
        for _ in range(len(self.modules)):
            exported = names and self.exported(base, names[0])
            if not exported or exported == base:
                break
            base = exported
        return base

    def exported(self, module, item):
        """The child of `module` from which it imports or re-exports `item`."""
        for path in self.uses[module]:
            *names, last = path.removeprefix("self::").split("::")
            if last == item and names and module + (names[0],) in self.modules:
                return self.descend(module, names)[0]
        return None

    def imports(self):
        """From each module to each sibling that it imports, with one example."""
        graph = {}
        for module, code in self.modules.items():
            paths = self.uses[module] + re.findall(r"\b((?:crate|super)(?:::\w+)+)", code)
            for path in paths:
                target = self.target(module, path)
                if target is not None:
                    self.connect(graph, module, target, path)
        return graph

    @staticmethod
    def connect(graph, module, target, path):
        """Adds an arrow between the siblings above a module and the one that it imports."""
        common = 0
        while common < min(len(module), len(target)) and module[common] == target[common]:
            common += 1
        if common < len(module) and common < len(target):
            edge = graph.setdefault(module[: common + 1], {})
            edge.setdefault(target[: common + 1], ("::".join(module), path))


def circles(graph):
    """Sets of modules that import one another (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, {}):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            circle = {stack.pop()}
            while node not in circle:
                circle.add(stack.pop())
            if len(circle) > 1:
                found.append(circle)

    for node in list(graph):
        if node not in index:
            visit(node)
    return found


def main():
    broken = False
    for folder in sys.argv[1:]:
        graph = Crate(Path(folder)).imports()
        for circle in circles(graph):
            if frozenset("::".join(module) for module in circle) in ALLOWED:
                continue
            broken = True
            print(f"{folder}: modules import one another")
            for module in sorted(circle):
                for other in sorted(circle & set(graph.get(module, {}))):
                    where, path = graph[module][other]
                    print(f"    {'::'.join(module)} → {'::'.join(other)}: {where} uses {path}")
    sys.exit(broken)


if __name__ == "__main__":
    sys.setrecursionlimit(10_000)
    main()
