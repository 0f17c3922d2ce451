"use strict";
// The arena map: every page a cell, at each recorded moment; a slab's objects on a click.
(() => {
	const app = document.getElementById("map-app");
	if (!app || !window.DecompressionStream) return;
	const { maps, kinds, states, shown, slabs } = shmalloc.data("map-data");
	const { hole: HOLE, transit: TRANSIT, free: FREE, reserve: RESERVE } = Object.fromEntries(kinds.map(({ name }, at) => [name, at]));
	const $ = (name) => app.querySelector(`[data-map="${name}"]`);
	const canvas = $("canvas"), tip = $("tip"), slider = $("slider"), said = $("said"), panel = $("slab");
	const LABEL = 18, HEIGHT = 560, MOST_SCALE = 64, PATTERN_FROM = 6, OUTLINE_FROM = 4; // pixels
	const WORDS = ["cache", "inuse", "objects"], BYTES = ["kind", "order", "cpu", "marks", "types"];
	const FILLS = ["empty", "to 25 % in use", "to 50 %", "to 75 %", "below 100 %", "all in use"];
	const CACHES = 7; // told apart by colour
	const MARKED = 99, PFMEMALLOC = 1, HIGHATOMIC = 3; // legend's key; bit of the plane; migratetype
	const off = document.createElement("canvas");
	const lit = new Set();
	let map, planes, bodies, moment = 0, picked = -1, view, place, mode = "kind", keys, colours, playing = 0, ratio = 1;

	const number = (value) => value.toLocaleString("en-US");
	const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
	const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
	function rgb(colour) {
		probe.fillStyle = colour;
		probe.fillRect(0, 0, 1, 1);
		return [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3);
	}
	const mixed = (a, b, share) => a.map((value, at) => Math.round(value * (1 - share) + b[at] * share));
	const now = (plane, i) => planes[plane][moment * map.cells + i];
	const blockOf = (i) => Math.floor(i * map.group / 2 ** map.pageblock_order); // pageblock of a cell
	const typeOf = (block) => planes.types[moment * map.blocks + block];
	const first = (i) => i & -(1 << Math.max(0, now("order", i) - map.shift));

	// ---- data

	async function load(at) {
		const buffer = await shmalloc.unpack(`map-planes-${at}`);
		let from = 0;
		map = maps[at];
		map.shift = Math.log2(map.group);
		planes = {};
		for (const name of [...WORDS, ...BYTES]) {
			const Type = WORDS.includes(name) ? Uint16Array : Uint8Array;
			const width = name === "types" ? map.blocks : map.cells, length = width * map.moments.length;
			const plane = planes[name] = new Type(buffer, from, length);
			for (let i = width; i < length; i++) plane[i] ^= plane[i - width];
			from += plane.byteLength;
		}
		bodies = null;
		rankCaches();
	}

	async function readBodies(at) {
		const buffer = await shmalloc.unpack(`map-objects-${at}`), n = map.moments.length + 1;
		const [nSlabs] = new Uint32Array(buffer, 0, 2);
		const words = (from, length) => new Uint32Array(buffer, 4 * from, length);
		const slabAt = words(2, n), stateAt = words(2 + n, n), pfn = words(2 + 2 * n, nSlabs);
		const end = 4 * (2 + 2 * n + nSlabs), sizes = new Uint16Array(buffer, end, nSlabs);
		const packed = new Uint8Array(buffer, end + 4 * Math.ceil(nSlabs / 2));
		return { slabAt, stateAt, pfn, sizes, packed };
	}

	// The states of a slab's objects at this moment; null where they were not recorded.
	async function objectsOf(head) {
		if (!map.moments[moment].objects) return null;
		bodies ??= await readBodies(maps.indexOf(map));
		const { slabAt, stateAt, pfn, sizes, packed } = bodies;
		let at = stateAt[moment];
		for (let i = slabAt[moment]; i < slabAt[moment + 1]; at += sizes[i++])
			if (pfn[i] === head) return Array.from({ length: sizes[i] }, (_, k) => packed[(at + k) >> 1] >> 4 * ((at + k) & 1) & 15);
		return [];
	}

	function rankCaches() {
		const pages = new Map();
		for (const cache of planes.cache) if (cache) pages.set(cache, (pages.get(cache) ?? 0) + 1);
		map.ranked = [...pages].sort((a, b) => b[1] - a[1]).map(([cache]) => cache);
	}

	const cacheName = (cache) => map.caches[cache - 1]?.name ?? `cache ${cache - 1}`;

	// ---- what the cells are grouped by: the legend's entries

	const plainLook = (colour, pattern = "plain") => ({ colour, pattern });
	const slabOf = (i) => slabs.includes(now("kind", i)) && now("objects", i) > 0;
	const modes = {
		kind: {
			groups: () => kinds.map((kind, at) => ({ ...kind, ...plainLook(`--map-k${at}`, kind.pattern) })),
			key: (i) => now("kind", i),
			counts: () => map.counts[moment],
		},
		cache: {
			groups: () => [
				...map.ranked.slice(0, CACHES).map((cache, at) => ({ label: cacheName(cache), ...plainLook(`--series-${at}`) })),
				{ label: "other caches", ...plainLook("--quiet", "slash") }, { label: "no slab", ...plainLook("--raised") },
			],
			key: (i) => {
				const rank = now("cache", i) ? map.ranked.indexOf(now("cache", i)) : -1, n = Math.min(CACHES, map.ranked.length);
				return rank < 0 ? n + 1 : Math.min(rank, n);
			},
		},
		fill: {
			groups: () => [
				...FILLS.map((label, at) => ({ label, colour: "--series-0", share: 0.8 - 0.16 * at, pattern: "plain" })),
				{ label: "no slab", ...plainLook("--raised") },
			],
			key: (i) => {
				if (!slabOf(i)) return FILLS.length;
				const share = now("inuse", i) / now("objects", i);
				return share === 1 ? 5 : Math.ceil(share * 4);
			},
		},
		type: {
			groups: () => map.types.map((label, at) => plainGroup(label, at)),
			key: (i) => typeOf(blockOf(i)),
		},
	};
	function plainGroup(label, at) {
		return { label, ...plainLook(`--series-${[7, 0, 2, 1][at]}`, ["plain", "plain", "slash", "cross"][at]) };
	}

	// ---- where cells lie, in cells from the top left; a pageblock is a tile

	function layOut(width) {
		const order = Math.max(0, map.pageblock_order - map.shift);
		const wide = 2 ** Math.ceil(order / 2), high = 2 ** Math.floor(order / 2), gap = Math.max(1, wide >> 4);
		const zones = map.zones.map((zone) => {
			const start = Math.floor(zone.start / map.group), end = Math.ceil((zone.start + zone.pages) / map.group);
			return { ...zone, first: start, end, blocks: Math.ceil((end - start) / 2 ** order) };
		});
		const size = (across, label) => {
			const rows = zones.reduce((sum, zone) => sum + Math.ceil(zone.blocks / across), 0);
			return [Math.min(across, Math.max(...zones.map((zone) => zone.blocks))) * (wide + gap), rows * (high + gap) + zones.length * label];
		};
		const most = Math.max(1, ...zones.map((zone) => zone.blocks));
		const fits = Array.from({ length: most }, (_, at) => {
			const [w, h] = size(at + 1, 0);
			return Math.min(width / w, (HEIGHT - LABEL * zones.length) / h, 16);
		});
		const largest = Math.max(...fits), across = fits.findLastIndex((scale) => scale > 0.85 * largest) + 1;
		const label = Math.max(1, Math.ceil(LABEL / fits[across - 1]));
		const [w, h] = size(across, label);
		let top = 0;
		for (const zone of zones) {
			zone.label = top;
			zone.top = top + label;
			top = zone.top + Math.ceil(zone.blocks / across) * (high + gap);
		}
		place = { order, wide, high, gap, zones, across, w, h, label };
		view = { x: 0, y: 0, scale: Math.min(width / w, HEIGHT / h, 16) };
		view.least = view.scale;
		return Math.ceil(h * view.scale);
	}

	const zoneOf = (i) => place.zones.find((zone) => i >= zone.first && i < zone.end);
	function position(i) {
		const zone = zoneOf(i);
		if (!zone) return null;
		const block = (i - zone.first) >> place.order, within = (i - zone.first) & ((1 << place.order) - 1);
		return [
			block % place.across * (place.wide + place.gap) + within % place.wide,
			zone.top + Math.floor(block / place.across) * (place.high + place.gap) + Math.floor(within / place.wide),
		];
	}
	function cellAt(x, y) {
		const { wide, high, gap, across, order } = place;
		for (const zone of place.zones) {
			const row = Math.floor((y - zone.top) / (high + gap)), column = Math.floor(x / (wide + gap));
			const dx = Math.floor(x) - column * (wide + gap), dy = Math.floor(y - zone.top) - row * (high + gap);
			if (row < 0 || column < 0 || column >= across || dx >= wide || dy >= high) continue;
			const i = zone.first + ((row * across + column) << order) + dy * wide + dx;
			if (row * across + column < zone.blocks && i < zone.end) return i;
		}
		return -1;
	}

	// ---- painting

	function paint() {
		const groups = modes[mode].groups(), ground = rgb(style("--ground")), end = rgb(style("--map-ramp")), bad = rgb(style("--bad"));
		colours = groups.map((group) => mixed(rgb(style(group.colour)), ground, group.share ?? 0));
		off.width = place.w;
		off.height = place.h;
		const image = new ImageData(place.w, place.h);
		keys = new Uint8Array(map.cells);
		for (const zone of place.zones)
			for (let i = zone.first; i < zone.end; i++) {
				const key = keys[i] = modes[mode].key(i);
				let colour = colours[key] ?? ground;
				if (mode === "kind" && key === FREE) colour = mixed(colour, end, now("order", i) / 10);
				const marked = now("marks", i) & PFMEMALLOC;
				if (marked) colour = mixed(colour, bad, 0.5);
				if (lit.size && !lit.has(key) && !(marked && lit.has(MARKED))) colour = mixed(colour, ground, 0.85);
				const [x, y] = position(i);
				image.data.set([...colour, 255], 4 * (y * place.w + x));
			}
		off.getContext("2d").putImageData(image, 0, 0);
		legend([...groups, ...markGroup()]);
		draw();
	}

	function draw() {
		const context = canvas.getContext("2d"), { x, y, scale } = view, ink = style("--ink");
		context.setTransform(ratio, 0, 0, ratio, 0, 0);
		context.fillStyle = style("--ground");
		context.fillRect(0, 0, canvas.clientWidth, canvas.clientHeight);
		context.imageSmoothingEnabled = scale * ratio < 1;
		context.drawImage(off, -x * scale, -y * scale, place.w * scale, place.h * scale);
		if (scale >= OUTLINE_FROM) cells(context);
		tiles(context);
		context.font = `12px ${style("--font-text")}`;
		context.fillStyle = style("--quiet");
		for (const zone of place.zones)
			context.fillText(`${zone.name}: ${number(zone.pages)} pages`, Math.max(2, -x * scale), (zone.top - y) * scale - 4);
		mark(context, ink);
	}

	// The pageblocks' borders.
	function tiles(context) {
		const { wide, high, gap, across, order } = place, { x, y, scale } = view;
		const reserved = new Path2D(); // HIGHATOMIC pageblocks
		context.strokeStyle = style("--quiet");
		context.lineWidth = 1;
		context.beginPath();
		for (const zone of place.zones)
			for (let block = 0; block < zone.blocks; block++) {
				const left = (block % across * (wide + gap) - x) * scale;
				const top = (zone.top + Math.floor(block / across) * (high + gap) - y) * scale;
				const rows = Math.min(high, Math.ceil((zone.end - zone.first - (block << order)) / wide));
				context.rect(left, top, wide * scale, rows * scale);
				if (typeOf(blockOf(zone.first + (block << order))) === HIGHATOMIC) reserved.rect(left - 1, top - 1, wide * scale + 2, rows * scale + 2);
			}
		context.globalAlpha = gap * scale >= 3 ? 1 : 0.4;
		context.stroke();
		context.globalAlpha = 1;
		context.lineWidth = 3;
		context.strokeStyle = style(`--map-k${RESERVE}`);
		context.stroke(reserved);
	}

	function* visible() {
		const { x, y, scale } = view, { wide, high, gap, across, order } = place;
		const right = x + canvas.clientWidth / scale, bottom = y + canvas.clientHeight / scale;
		for (const zone of place.zones)
			for (let block = 0; block < zone.blocks; block++) {
				const left = block % across * (wide + gap), top = zone.top + Math.floor(block / across) * (high + gap);
				if (left > right || left + wide < x || top > bottom || top + high < y) continue;
				for (let within = 0; within < 1 << order; within++) {
					const i = zone.first + (block << order) + within;
					const cx = left + within % wide, cy = top + Math.floor(within / wide);
					if (i < zone.end && cx < right && cx + 1 > x && cy < bottom && cy + 1 > y) yield [i, (cx - x) * scale, (cy - y) * scale];
				}
			}
	}

	// Blocks' outlines, and patterns where there is room for them.
	function cells(context) {
		const { wide, order } = place, { scale } = view, groups = modes[mode].groups();
		const outlines = new Path2D(), corners = new Path2D();
		const marks = colours.map((colour) => (isLight(colour) ? 0 : 1)), paths = [[new Path2D(), new Path2D()], [new Path2D(), new Path2D()]];
		for (const [i, x, y] of visible()) {
			if (first(i) === i || map.group > 1) {
				const pages = Math.min(1 << order, map.group > 1 ? 1 : 1 << now("order", i));
				outlines.rect(x, y, Math.min(pages, wide) * scale, Math.max(1, pages / wide) * scale);
			}
			if (now("marks", i) & PFMEMALLOC) corners.rect(x + 1, y + 1, scale * 0.3, scale * 0.3);
			if (scale >= PATTERN_FROM && (!lit.size || lit.has(keys[i]))) pattern(groups[keys[i]]?.pattern, ...paths[marks[keys[i]] ?? 0], x, y, scale);
		}
		context.lineWidth = 1;
		context.strokeStyle = style("--ground");
		context.stroke(outlines);
		context.fillStyle = style("--bad");
		context.fill(corners);
		paths.forEach(([strokes, dots], at) => {
			context.strokeStyle = context.fillStyle = at ? "#ffffffb0" : "#000000a0";
			context.stroke(strokes);
			context.fill(dots);
		});
	}
	const isLight = ([r, g, b]) => 0.3 * r + 0.6 * g + 0.1 * b > 115;

	function pattern(name, strokes, dots, x, y, size) {
		const a = size * 0.22, b = size - a, half = size / 2;
		if (name === "slash" || name === "cross") { strokes.moveTo(x + a, y + b); strokes.lineTo(x + b, y + a); }
		if (name === "backslash" || name === "cross") { strokes.moveTo(x + a, y + a); strokes.lineTo(x + b, y + b); }
		if (name === "dash" || name === "plus") { strokes.moveTo(x + a, y + half); strokes.lineTo(x + b, y + half); }
		if (name === "bar" || name === "plus") { strokes.moveTo(x + half, y + a); strokes.lineTo(x + half, y + b); }
		if (name === "dot") dots.rect(x + half - size / 10, y + half - size / 10, size / 5, size / 5);
	}

	// The picked page, and all of its block.
	function mark(context, ink) {
		delete canvas.dataset.x;
		if (picked < 0 || !position(picked)) return;
		const [cx, cy] = position(picked), { scale } = view, size = Math.max(scale, 5);
		const x = (cx - view.x + 0.5) * scale, y = (cy - view.y + 0.5) * scale;
		for (const [width, colour] of [[5, style("--ground")], [2.5, ink]]) {
			context.lineWidth = width;
			context.strokeStyle = colour;
			context.strokeRect(x - size / 2, y - size / 2, size, size);
		}
		canvas.dataset.x = x;
		canvas.dataset.y = y;
	}

	// ---- words

	function pagesOf(i) {
		return map.group === 1 ? `page ${number(i)}` : `pages ${number(i * map.group)} to ${number((i + 1) * map.group - 1)}, mostly`;
	}
	function describe(i) {
		const kind = now("kind", i), zone = zoneOf(i), order = now("order", i), lines = [[pagesOf(i), kinds[kind].label]];
		const block = blockOf(i);
		lines.push(["zone", `${zone?.name ?? "none"}, pageblock ${block} (${map.types[typeOf(block)] ?? "?"})`]);
		if (map.group > 1) return lines;
		if (kind !== HOLE && kind !== TRANSIT)
			lines.push(["block", order ? `order ${order}, pages ${number(first(i))} to ${number(first(i) + 2 ** order - 1)}` : "order 0"]);
		if (now("cpu", i)) lines.push(["CPU", `${now("cpu", i) - 1}`]);
		if (now("cache", i)) {
			const cache = map.caches[now("cache", i) - 1];
			lines.push(["cache", cacheName(now("cache", i)) + (cache ? `, objects of ${cache.object_size} bytes, one every ${cache.size}` : "")]);
			lines.push(["in use", `${now("inuse", i)} of ${now("objects", i)} objects, as the slab counts`]);
		}
		if (now("marks", i) & PFMEMALLOC) lines.push(["pfmemalloc", "came out of the reserves"]);
		return lines;
	}
	const sentence = (i) => describe(i).map(([name, text]) => `${name}: ${text}`).join("\n");

	function legend(groups) {
		const list = $("legend"), counts = [...(modes[mode].counts?.() ?? count(groups.length))];
		list.replaceChildren(...groups.flatMap((group, place) => {
			const at = group.key ?? place;
			if (group.key) counts[at] = group.pages;
			if (!counts[at] && !lit.has(at) && !everThere(at)) return [];
			const item = document.createElement("li"), button = document.createElement("button");
			button.type = "button";
			button.title = group.text ?? "";
			button.dataset.key = at;
			button.setAttribute("aria-pressed", lit.has(at));
			const amount = document.createElement("b");
			amount.textContent = number(counts[at] ?? 0);
			button.append(swatch(group), `${group.label} `, amount);
			button.addEventListener("click", () => {
				if (!lit.delete(at)) lit.add(at);
				paint();
				list.querySelector(`[data-key="${at}"]`)?.focus();
			});
			item.append(button);
			return [item];
		}));
		$("orders").textContent = orders();
	}
	// Slabs and blocks out of the reserves, beside what they are.
	function markGroup() {
		let pages = 0;
		for (let i = 0; i < map.cells; i++) if (now("marks", i) & PFMEMALLOC) pages++;
		const text = "taken below the min watermark, by who frees memory; in the colour of what it is, and this";
		return pages || lit.has(MARKED) ? [{ key: MARKED, pages, label: "pfmemalloc", text, ...plainLook("--bad") }] : [];
	}
	const everThere = (at) => mode === "kind" && map.counts.some((row) => row[at]);
	function count(length) {
		const found = new Array(length).fill(0);
		for (const zone of place.zones) for (let i = zone.first; i < zone.end; i++) found[keys[i]] += map.group;
		return found;
	}
	function orders() {
		if (map.group > 1) return "";
		const pages = new Array(11).fill(0);
		for (let i = 0; i < map.cells; i++) if ([FREE, RESERVE].includes(now("kind", i))) pages[now("order", i)]++;
		return `free blocks by order: ${pages.map((n, order) => `${order}: ${number(n / 2 ** order)}`).join(", ")}`;
	}
	function swatch(group) {
		const small = document.createElement("canvas"), context = small.getContext("2d");
		small.width = small.height = 28;
		small.className = "map-swatch";
		small.setAttribute("aria-hidden", "true");
		const colour = mixed(rgb(style(group.colour)), rgb(style("--ground")), group.share ?? 0);
		context.fillStyle = `rgb(${colour})`;
		context.fillRect(0, 0, 28, 28);
		const strokes = new Path2D(), dots = new Path2D();
		pattern(group.pattern, strokes, dots, 0, 0, 28);
		context.strokeStyle = context.fillStyle = isLight(colour) ? "#000000c0" : "#ffffffd0";
		context.lineWidth = 2.5;
		context.stroke(strokes);
		context.fill(dots);
		return small;
	}

	async function show() {
		said.textContent = picked < 0 ? "" : sentence(picked).replaceAll("\n", "; ");
		if (picked < 0) return;
		const i = picked, at = moment, mine = map;
		const list = document.createElement("dl");
		for (const [name, text] of describe(i)) {
			const term = document.createElement("dt"), what = document.createElement("dd");
			term.textContent = name;
			what.textContent = text;
			list.append(term, what);
		}
		const parts = [list];
		if (slabs.includes(now("kind", i)) && map.group === 1) {
			const head = first(i), found = await objectsOf(head);
			if (i !== picked || at !== moment || mine !== map) return; // somebody has moved on meanwhile
			parts.push(...(found ? objectCells(found, head) : [text(`Which objects are live was not kept for this moment in this page${recordedFile()}.`)]));
		}
		panel.replaceChildren(...parts);
	}
	const recordedFile = () => (map.file ? `; ${map.file} may have it` : "");
	function text(words) {
		const line = document.createElement("p");
		line.textContent = words;
		return line;
	}
	function objectCells(found, head) {
		const cache = map.caches[now("cache", picked) - 1], tally = new Map();
		const list = document.createElement("ol");
		list.className = "map-objects";
		list.setAttribute("aria-label", `objects of the slab at page ${head}`);
		found.forEach((state, at) => {
			const item = document.createElement("li"), offset = (cache?.red_left_pad ?? 0) + at * (cache?.size ?? 0);
			item.className = `map-s${state} map-${states[state].pattern}`;
			item.dataset.state = states[state].name;
			item.title = `object ${at}, ${number(offset)} bytes into the slab: ${states[state].label}`;
			list.append(item);
			tally.set(state, (tally.get(state) ?? 0) + 1);
		});
		const legend = document.createElement("ul");
		legend.className = "legend";
		for (const [state, times] of [...tally].sort((a, b) => a[0] - b[0])) {
			const item = document.createElement("li"), amount = document.createElement("b");
			item.title = states[state].text;
			amount.textContent = number(times);
			item.append(swatch({ colour: `--map-s${state}`, pattern: states[state].pattern }), ` ${states[state].label} `, amount);
			legend.append(item);
		}
		return [legend, list];
	}

	// ---- moving about

	function pick(i) {
		if (i < 0 || !zoneOf(i)) return;
		picked = i;
		$("page").value = i * map.group;
		const [cx, cy] = position(i), w = canvas.clientWidth / view.scale, h = canvas.clientHeight / view.scale;
		if (cx < view.x || cx + 1 > view.x + w) view.x = cx - w / 2;
		if (cy < view.y || cy + 1 > view.y + h) view.y = cy - h / 2;
		keepIn();
		draw();
		show();
	}
	function keepIn() {
		const w = canvas.clientWidth / view.scale, h = canvas.clientHeight / view.scale;
		view.x = Math.max(0, Math.min(view.x, place.w - w));
		view.y = Math.max(0, Math.min(view.y, place.h - h));
	}
	function zoom(factor, px = canvas.clientWidth / 2, py = canvas.clientHeight / 2) {
		const before = view.scale;
		view.scale = Math.max(view.least, Math.min(MOST_SCALE, before * factor));
		view.x += px / before - px / view.scale;
		view.y += py / before - py / view.scale;
		keepIn();
		canvas.dataset.scale = view.scale;
		draw();
	}
	function toPicked(factor) {
		const at = picked >= 0 && canvas.dataset.x ? [+canvas.dataset.x, +canvas.dataset.y] : [];
		zoom(factor, ...at);
	}
	function setMoment(at) {
		moment = Math.max(0, Math.min(map.moments.length - 1, at));
		slider.value = moment;
		const { label, t_ms: t } = map.moments[moment];
		$("time").textContent = `${t.toLocaleString("en-US", { maximumFractionDigits: 1, minimumFractionDigits: 1 })} ms${label ? `, ${label}` : ""}`;
		slider.setAttribute("aria-valuetext", $("time").textContent);
		paint();
		show();
	}
	function play(on) {
		clearInterval(playing);
		playing = on ? setInterval(() => (moment + 1 < map.moments.length ? setMoment(moment + 1) : play(false)), 250) : 0;
		$("play").textContent = on ? "pause" : "play";
		$("play").setAttribute("aria-pressed", on);
	}
	function fit() {
		ratio = window.devicePixelRatio || 1;
		const width = Math.max(LABEL, canvas.parentElement.clientWidth - 2); // 0 where it is not drawn: on paper
		const height = layOut(width);
		canvas.style.height = `${height + 2}px`;
		canvas.width = Math.round(width * ratio);
		canvas.height = Math.round(height * ratio);
		canvas.dataset.scale = view.scale;
		paint();
	}
	async function choose(at) {
		play(false);
		await load(at);
		picked = -1;
		panel.replaceChildren(text("Click a page, or move to it with the arrow keys, to see what it is."));
		lit.clear();
		slider.max = map.moments.length - 1;
		$("page").max = map.cells * map.group - 1;
		$("kept").textContent = kept();
		moment = map.moments.length - 1;
		const start = map.moments.findIndex((each) => each.label === shown);
		if (start >= 0) moment = start;
		fit();
		setMoment(moment);
		app.dataset.ready = at;
	}
	function kept() {
		const words = [];
		if (map.moments.length < map.recorded) words.push(`This page has ${map.moments.length} of ${map.recorded} recorded moments`);
		const bare = map.moments.filter((each) => !each.objects).length;
		if (map.group > 1) words.push(`A cell stands for ${map.group} pages, coloured as most of them are; objects are not recorded of an arena this large`);
		else if (bare) words.push(`${bare} of these moments are without objects`);
		return words.length ? `${words.join(". ")}${map.file ? `; all that was recorded is in ${map.file}` : ""}.` : "";
	}

	const local = (event) => [event.offsetX, event.offsetY];
	const under = (event) => { const [x, y] = local(event); return cellAt(view.x + x / view.scale, view.y + y / view.scale); };
	let drag = null;
	canvas.addEventListener("pointerdown", (event) => {
		drag = { at: local(event), x: view.x, y: view.y, moved: false };
		canvas.setPointerCapture(event.pointerId);
	});
	canvas.addEventListener("pointermove", (event) => {
		const [x, y] = local(event);
		if (drag) {
			if (Math.hypot(x - drag.at[0], y - drag.at[1]) > 4) drag.moved = true;
			if (drag.moved) {
				view.x = drag.x - (x - drag.at[0]) / view.scale;
				view.y = drag.y - (y - drag.at[1]) / view.scale;
				keepIn();
				draw();
			}
		}
		const i = under(event);
		tip.hidden = i < 0;
		if (i < 0) return;
		tip.textContent = sentence(i);
		const right = x > canvas.clientWidth / 2, low = y > canvas.clientHeight / 2;
		tip.style.left = right ? "auto" : `${x + 14}px`;
		tip.style.right = right ? `${canvas.clientWidth - x + 14}px` : "auto";
		tip.style.top = low ? "auto" : `${y + 14}px`;
		tip.style.bottom = low ? `${canvas.clientHeight - y + 14}px` : "auto";
	});
	canvas.addEventListener("pointerup", (event) => {
		if (drag && !drag.moved) pick(under(event));
		drag = null;
	});
	canvas.addEventListener("pointercancel", () => { drag = null; });
	canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
	canvas.addEventListener("wheel", (event) => {
		if (event.deltaY > 0 && view.scale <= view.least) return; // let the page scroll
		event.preventDefault();
		zoom(event.deltaY < 0 ? 1.25 : 0.8, ...local(event));
	}, { passive: false });
	canvas.addEventListener("keydown", (event) => {
		const tile = 1 << place.order, { wide } = place;
		const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -wide, ArrowDown: wide, PageUp: -tile, PageDown: tile };
		if (event.ctrlKey || event.altKey || event.metaKey) return;
		if (event.key in steps) pick(Math.max(0, Math.min(map.cells - 1, picked < 0 ? place.zones[0].first : picked + steps[event.key])));
		else if (event.key === "Home") pick(place.zones[0].first);
		else if (event.key === "End") pick(place.zones.at(-1).end - 1);
		else if (event.key === "+" || event.key === "=") toPicked(1.5);
		else if (event.key === "-") toPicked(1 / 1.5);
		else if (event.key === "0") zoom(0);
		else if (event.key === "Enter" && picked >= 0) panel.focus();
		else return;
		event.preventDefault();
	});
	slider.addEventListener("input", () => { play(false); setMoment(+slider.value); });
	$("play").addEventListener("click", () => {
		if (!playing && moment === map.moments.length - 1) setMoment(0);
		play(!playing);
	});
	$("in").addEventListener("click", () => toPicked(1.5));
	$("out").addEventListener("click", () => toPicked(1 / 1.5));
	$("fit").addEventListener("click", () => zoom(0));
	$("mode").addEventListener("change", () => { mode = $("mode").value; lit.clear(); paint(); });
	$("page").addEventListener("change", () => pick(Math.floor(+$("page").value / map.group)));
	$("which")?.addEventListener("change", () => choose(+$("which").value));
	matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTimeout(paint));
	let width = 0;
	new ResizeObserver(() => {
		const there = canvas.parentElement.clientWidth;
		if (!map || !there || there === width) return;
		width = there;
		fit();
	}).observe(canvas.parentElement);

	app.hidden = false;
	app.parentElement.classList.add("map-runs");
	choose(0);
})();
