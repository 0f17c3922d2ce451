// A box above the counters: rows whose name holds none of the words in it are hidden.
(() => {
	const section = document.getElementById("counters");
	const box = document.createElement("input");
	const label = document.createElement("label");
	const shown = document.createElement("output");
	const rows = [...section.querySelectorAll("tbody tr")];
	box.type = "search";
	box.placeholder = "part of a name, several words: any of them";
	label.append("counter ", box);
	const controls = document.createElement("p");
	controls.className = "controls";
	controls.append(label, shown);
	section.querySelector("h2").after(controls);
	box.addEventListener("input", () => {
		const words = box.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
		for (const row of rows) {
			const name = row.cells[0].textContent.toLowerCase();
			row.hidden = words.length > 0 && !words.some((word) => name.includes(word));
		}
		const left = new Set(rows.filter((row) => !row.hidden).map((row) => row.cells[0].textContent)).size;
		shown.textContent = words.length ? left + " shown" : "";
	});
})();
