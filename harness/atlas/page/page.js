"use strict";
// What the data are like: data.py. Nothing is made before it is looked at.
(async () => {
	const data = JSON.parse(new TextDecoder().decode(await shmalloc.unpack("atlas-data")));
	const text = (number) => data.strings[number];
	const byId = (id) => document.getElementById("atlas-" + id);
	const looks = new Map(data.looks.map(([name, css, letter, said], rank) => [name, { css, letter, said, rank }]));
	const byName = new Map(data.looks.map(([name]) => [text(name), name]));
	const FIRST = 40, PART = 200; // rows that are made at a time

	function make(tag, attributes, ...children) {
		const made = document.createElement(tag);
		for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
		made.append(...children.filter((child) => child !== null));
		return made;
	}

	const chip = (outcome) => make("i", { class: "chip " + looks.get(outcome).css, title: looks.get(outcome).said },
		looks.get(outcome).letter);

	// [outcome, count, ...] as pairs, worst first
	function pairs(counts) {
		const found = [];
		for (let at = 0; at < counts.length; at += 2) found.push([counts[at], counts[at + 1]]);
		return found.sort((a, b) => looks.get(b[0]).rank - looks.get(a[0]).rank);
	}

	const said = (found) => found.map(([outcome, count]) => looks.get(outcome).said + " " + count.toLocaleString("en")).join(", ");

	function instructions(rows) {
		return rows.map(([number, points, counts]) => {
			const [address, what, file, line, inlined, level, source] = data.code[number];
			return { address, what, file, line, inlined, level, source: text(source), points, found: pairs(counts) };
		});
	}

	const hex = (number) => "+0x" + number.toString(16);

	// A function from its first instruction to its last; neighbours that came to the same are one part.
	function strip(one) {
		const parts = [];
		for (const each of one.executed) {
			const outcome = each.found[0][0], last = parts[parts.length - 1];
			if (last && last.outcome === outcome) { last.count++; last.to = each; }
			else parts.push({ outcome, count: 1, from: each, to: each });
		}
		return make("span", { class: "bar strip" }, ...parts.map(({ outcome, count, from, to }) => make("i", {
			class: looks.get(outcome).css, style: "flex-grow:" + count, "data-address": from.address,
			title: looks.get(outcome).said + ": " + count + " instruction" + (count > 1 ? "s" : "") + ", " + hex(from.address - one.start)
				+ (count > 1 ? " to " + hex(to.address - one.start) : "") + " (" + text(from.file) + ":" + from.line + ")" })));
	}

	// A row that opens: body() is called when it does for the first time.
	function opening(cells, columns, body) {
		const row = make("tr", { class: "row", tabindex: "0" }, ...cells);
		let below = null;
		row.setAttribute("aria-expanded", "false");
		const turn = () => {
			if (!below) {
				below = make("tr", { class: "body", hidden: "" }, make("td", { colspan: columns }, body()));
				row.after(below);
			}
			below.hidden = !below.hidden;
			row.classList.toggle("open", !below.hidden);
			row.setAttribute("aria-expanded", String(!below.hidden));
		};
		row.addEventListener("click", (event) => {
			const part = event.target.closest("[data-address]");
			if (event.target.closest(".copy") || (part && row.classList.contains("open"))) return;
			turn();
		});
		row.addEventListener("keydown", (event) => {
			if (event.target !== row || (event.key !== "Enter" && event.key !== " ")) return;
			event.preventDefault();
			turn();
		});
		return row;
	}

	// A table whose rows are made a part at a time.
	function table(head, things, row) {
		const body = make("tbody");
		const more = make("button", { type: "button", class: "more" });
		let shown = 0;
		const grow = () => {
			const end = Math.min(things.length, shown + (shown ? PART : FIRST));
			body.append(...things.slice(shown, end).map(row));
			shown = end;
			more.hidden = shown === things.length;
			more.textContent = (things.length - shown).toLocaleString("en") + " more";
		};
		more.addEventListener("click", grow);
		grow();
		const titles = head.map((title) => make("th", { class: title.startsWith("#") ? "n" : "" }, title.replace("#", "")));
		return make("div", { class: "wide" }, make("table", {}, make("thead", {}, make("tr", {}, ...titles)), body), more);
	}

	const cell = (child) => make("td", {}, child);
	const number = (count) => make("td", { class: "n" }, count.toLocaleString("en"));
	const code = (what) => make("code", {}, what);

	// --- functions ---------------------------------------------------------------------------

	const chosen = () => ({
		cell: data.cells[byId("cell").value || 0],
		outcome: byName.get(byId("outcome").value),
		level: byId("level").value,
		name: byId("name").value.toLowerCase(),
	});

	function heading(filter, count, what) {
		const chosen = [filter.outcome === undefined ? "" : looks.get(filter.outcome).said, filter.level, filter.name].filter(Boolean);
		return make("p", {}, make("b", {}, filter.cell.id), ": " + count.toLocaleString("en") + " " + what + (count === 1 ? "" : "s")
			+ (chosen.length ? " (" + chosen.join(", ") + ")" : ""));
	}

	const wanted = (each, filter) => (filter.outcome === undefined || each.found.some(([name]) => name === filter.outcome))
		&& (!filter.level || text(each.level) === filter.level);

	function listing(filter) {
		return filter.cell.functions.map(([name, file, start, size, rows]) => {
			const all = instructions(rows), executed = all.filter((each) => each.points);
			const shown = executed.filter((each) => wanted(each, filter));
			const worst = new Map();
			for (const each of executed) worst.set(each.found[0][0], (worst.get(each.found[0][0]) || 0) + 1);
			return { name: text(name), file: text(file), start, size, all, executed, shown, points: all.reduce((sum, each) => sum + each.points, 0),
				worst: pairs([...worst].flat()) };
		}).filter((each) => each.shown.length && each.name.toLowerCase().includes(filter.name))
			.sort((a, b) => looks.get(b.worst[0][0]).rank - looks.get(a.worst[0][0]).rank || b.worst[0][1] - a.worst[0][1]);
	}

	function disassembly(one, filter) {
		const rows = [];
		let place = null, chain = null;
		for (const each of one.all) {
			const here = text(each.file) + ":" + each.line, within = each.inlined.map(text).join(" \u203a ");
			if (here !== place || within !== chain) {
				const line = each.source;
				rows.push(make("tr", { class: "source" }, make("td", { colspan: 5 }, code(here + "  "), make("code", { class: "line" }, line),
					make("span", { class: "within" }, within && " in " + within))));
				place = here; chain = within;
			}
			const dim = !each.points || !wanted(each, filter);
			const points = filter.cell.points.get(each.address) || [];
			const head = [cell(each.points ? chip(each.found[0][0]) : null), cell(code(hex(each.address - one.start))), cell(code(each.address.toString(16))), cell(code(text(each.what))), cell(said(each.found))];
			const row = points.length ? opening(head, 5, () => make("div", {}, ...points.map(point))) : make("tr", {}, ...head);
			row.classList.toggle("dim", dim);
			row.dataset.at = each.address;
			rows.push(row);
		}
		return make("table", {}, make("tbody", {}, ...rows));
	}

	function functions(filter) {
		const found = listing(filter);
		const head = ["function", "source", "from first to last instruction, by worst outcome", "", "#instructions", "#injections"];
		const made = table(head, found, (one) => opening(
			[cell(code(one.name)), cell(one.file), cell(strip(one)), cell(said(one.worst)), number(one.executed.length), number(one.points)],
			6, () => disassembly(one, filter)));
		byId("functions").replaceChildren(heading(filter, found.length, "function"), made);
	}

	// --- points ------------------------------------------------------------------------------

	function copyable(command) {
		return make("code", { class: "copy", tabindex: "0", title: "click to copy" }, command);
	}

	function lines(title, numbers) {
		return numbers.length ? make("div", {}, make("h4", {}, title), make("pre", {}, numbers.map(text).join("\n"))) : null;
	}

	// As data.py's _point: texts, numbers, lines.
	function point(packed) {
		const [scenario, , , verdict, what, operation, handler, replay, , , occurrence, , stack, arrived, changed, before, after] = packed;
		const seen = [stack, arrived, changed, before, after].some((each) => each.length);
		return make("div", {},
			make("p", {}, make("b", {}, looks.get(verdict).said), ": " + text(what)),
			make("p", {}, copyable(text(replay))),
			make("p", { class: "quiet" }, text(scenario) + ", occurrence " + occurrence + "; the interrupted call: " + text(operation)
				+ ", the one that arrived: " + text(handler)),
			seen ? null : make("p", { class: "quiet" }, "Its call stacks and the arena are shown by running it again."),
			make("div", { class: "stacks" }, lines("interrupted here", stack), lines("what arrived", arrived)),
			lines("what changed in the arena", changed),
			make("div", { class: "stacks" }, lines("the arena before", before), lines("the arena after", after)));
	}

	function points(filter) {
		const levels = new Map();
		for (const [, , , , rows] of filter.cell.functions)
			for (const [where] of rows) levels.set(data.code[where][0], text(data.code[where][5]));
		const found = [...filter.cell.red, ...filter.cell.unpromised, ...filter.cell.deadlocks, ...filter.cell.pairs].filter((each) =>
			(filter.outcome === undefined || each[3] === filter.outcome)
			&& (!filter.level || levels.get(each[9]) === filter.level)
			&& text(each[1]).toLowerCase().includes(filter.name));
		const head = ["", "at", "source", "what", "replay", "#injections"];
		const made = found.length ? table(head, found, (each) => opening(
			[cell(chip(each[3])), cell(code(text(each[1]))), cell(text(each[2])), cell(text(each[4])), cell(copyable(text(each[7]))),
				number(each[11])],
			6, () => point(each))) : make("p", {}, "none");
		byId("points").replaceChildren(heading(filter, found.length, "point"), made);
	}

	// --- what is looked at -------------------------------------------------------------------

	function levels(filter) {
		const names = new Set();
		for (const [, , , , rows] of filter.cell.functions) for (const [where] of rows) names.add(text(data.code[where][5]));
		const any = make("option", { value: "" }, "any");
		byId("level").replaceChildren(any, ...[...names].sort().map((name) => make("option", { value: name }, name)));
		byId("level").value = names.has(filter.level) ? filter.level : "";
	}

	function show() {
		if (!data.cells.length) return;
		levels(chosen());
		const filter = chosen();
		functions(filter);
		points(filter);
	}

	for (const each of data.cells) {
		each.points = new Map();
		for (const one of [...each.red, ...each.unpromised, ...each.deadlocks]) {
			if (!each.points.has(one[9])) each.points.set(one[9], []);
			each.points.get(one[9]).push(one);
		}
	}
	for (const id of ["cell", "outcome", "level"]) byId(id).addEventListener("change", show);
	byId("name").addEventListener("input", show);
	byId("functions").addEventListener("click", (event) => { // a part of a function: to its first instruction
		const part = event.target.closest("[data-address]");
		if (!part) return;
		const below = part.closest("tr").nextElementSibling;
		below.querySelector(`[data-at="${part.dataset.address}"]`).scrollIntoView({ block: "center" });
	});
	document.addEventListener("click", (event) => {
		const link = event.target.closest("[data-cell]");
		if (!link) return;
		byId("cell").value = data.cells.findIndex((each) => each.id === link.dataset.cell);
		byId("outcome").value = byId("name").value = "";
		levels({ ...chosen(), level: link.dataset.level });
		show();
	});
	show();
	for (const each of document.querySelectorAll("#atlas-map .controls")) each.hidden = false;
})();
