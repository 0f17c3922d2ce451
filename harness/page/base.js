"use strict";
// What all sections share: data of the page, commands that copy themselves, folded things when it is printed.
(() => {
	const parsed = new Map();

	// What a section left under this id as JSON.
	function data(id) {
		if (!parsed.has(id)) parsed.set(id, JSON.parse(document.getElementById(id).textContent));
		return parsed.get(id);
	}

	// What a section left under this id as bytes: base64 of a zlib stream.
	async function unpack(id) {
		const text = atob(document.getElementById(id).textContent);
		const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
		const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
		return new Response(plain).arrayBuffer();
	}

	window.shmalloc = Object.freeze({ data, unpack });

	function copy(command) {
		getSelection().selectAllChildren(command);
		if (navigator.clipboard) navigator.clipboard.writeText(command.textContent).then(() => command.classList.add("done"), () => {});
	}

	document.addEventListener("click", (event) => {
		const command = event.target.closest(".copy");
		if (command) copy(command);
	});
	document.addEventListener("keydown", (event) => {
		if (event.key === "Enter" && event.target.matches(".copy")) copy(event.target);
	});

	// On paper nothing can be unfolded: what is not too long is printed open, and what is, folded if it may be.
	const LONG = 120; // rows
	const turned = [];
	addEventListener("beforeprint", () => {
		for (const each of document.querySelectorAll("details:not([open]), details.long")) {
			const open = each.querySelectorAll("tr").length <= LONG;
			if (each.open !== open) { each.open = open; turned.push(each); }
		}
	});
	addEventListener("afterprint", () => { for (const each of turned.splice(0)) each.open = !each.open; });
})();
