"use strict";
// Filters and sorts the findings, and fills the fix commands in. Texts come from the page and go back as text, never as markup.
{
  const COMMANDS_AT_ONCE = 100; // nobody vouches for more images than that in one go
  const byId = (id) => document.getElementById(id);

  const select = (node) => {
    getSelection().selectAllChildren(node);
    node.focus();
  };

  // Where the browser withholds the clipboard (a file opened from disk, a policy), the text is selected instead.
  const copy = async (node, said) => {
    try {
      await navigator.clipboard.writeText(node.textContent.trimEnd());
      said.textContent = "Copied.";
    } catch {
      select(node);
      said.textContent = "Selected: copy it with Ctrl+C, or ⌘C.";
    }
  };

  // Digests are shown short, and are copied whole.
  for (const digest of document.querySelectorAll(".digest")) {
    const names = [...digest.closest("tr").querySelectorAll("th > bdi, th > code")].map((name) => name.textContent);
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy-digest";
    button.textContent = "Copy";
    button.ariaLabel = `Copy the digest of ${names.join(":")}`;
    digest.after(" ", button);
  }
  document.addEventListener("click", async (event) => {
    const button = event.target.closest(".copy-digest");
    if (!button) return;
    await copy(button.previousElementSibling, byId("copied"));
    button.textContent = byId("copied").textContent.split(/[.:]/u)[0];
    setTimeout(() => {
      button.textContent = "Copy";
      byId("copied").textContent = "";
    }, 2_000);
  });

  for (const block of document.querySelectorAll(".copied")) {
    const button = block.querySelector("button");
    button.hidden = false;
    button.addEventListener("click", () => copy(block.querySelector("pre"), block.querySelector("[role=status]")));
  }

  // Paper cannot be unfolded.
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details:not(.folded)")) details.open = true;
  });

  const table = byId("findings-table");
  if (table) {
    const groups = [...table.tBodies].map((body) => ({
      body,
      heading: body.rows[0],
      name: body.querySelector("bdi").textContent,
      rows: [...body.rows].slice(1).map((row) => ({ row, body })),
    }));
    const rows = groups.flatMap((group) => group.rows.map((one) => Object.assign(one, { namespace: group.name })));
    for (const one of rows) {
      const cells = [...one.row.cells].slice(0, 4);
      const [repository, tag] = cells[0].querySelectorAll("bdi");
      one.repository = repository.textContent;
      one.tag = tag.textContent;
      one.digest = cells[0].querySelector("small").textContent;
      one.keys = [`${one.repository}:${one.tag}`, ...cells.slice(1).map((cell) => cell.textContent)];
      one.text = [one.digest, ...one.keys].join("\n").toLowerCase();
      one.verdict = cells[1].querySelector("b").textContent;
      one.isExcepted = cells[1].querySelector("em") !== null;
      one.isNew = cells[1].querySelector("i") !== null;
    }

    // --- filter ---

    const text = byId("filter-text");
    const namespace = byId("filter-namespace");
    const verdict = byId("filter-verdict");
    const mark = byId("filter-mark");
    const number = new Intl.NumberFormat("en-US");
    const marks = {
      "": () => true,
      new: (one) => one.isNew,
      excepted: (one) => one.isExcepted,
      other: (one) => !one.isExcepted,
    };
    let shown = rows;
    let isSorted = false;

    const tell = () => {
      byId("shown").textContent =
        shown.length === rows.length
          ? `All ${number.format(rows.length)} listed findings are shown.`
          : `${number.format(shown.length)} of ${number.format(rows.length)} listed findings are shown.`;
      const button = byId("fix-shown");
      button.disabled = shown.length === 0 || shown.length > COMMANDS_AT_ONCE;
      button.textContent =
        shown.length > COMMANDS_AT_ONCE
          ? `Commands for all shown: at most ${COMMANDS_AT_ONCE}`
          : `Commands for the ${shown.length} shown`;
    };

    const filter = () => {
      const words = text.value.toLowerCase().split(/\s+/u).filter(Boolean);
      shown = rows.filter(
        (one) =>
          (!namespace.value || namespace.value === one.namespace) &&
          (!verdict.value || verdict.value === one.verdict) &&
          marks[mark.value](one) &&
          words.every((word) => one.text.includes(word)),
      );
      const isShown = new Set(shown);
      for (const one of rows) one.row.hidden = !isShown.has(one);
      for (const group of groups) {
        group.heading.hidden = isSorted || !group.rows.some((one) => isShown.has(one));
      }
      tell();
    };

    for (const group of groups) namespace.add(new Option(group.name, group.name));
    let waiting;
    text.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(filter, 120);
    });
    for (const choice of [namespace, verdict, mark]) choice.addEventListener("change", filter);
    byId("filter-clear").addEventListener("click", () => {
      text.value = namespace.value = verdict.value = mark.value = "";
      filter();
      text.focus();
    });
    for (const link of document.querySelectorAll("#namespaces a")) {
      link.addEventListener("click", (event) => {
        event.preventDefault();
        namespace.value = link.textContent;
        filter();
        byId("findings").scrollIntoView();
        byId("findings-heading").focus({ preventScroll: true });
      });
    }

    // --- sort ---

    const flat = document.createElement("tbody");
    const headings = [...table.tHead.rows[0].cells].slice(0, 4);
    let column = 0;
    let direction = 1;

    const sort = () => {
      headings.forEach((heading, index) => {
        if (index === column) heading.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
        else heading.removeAttribute("aria-sort");
      });
      // By name, the findings stand below their namespaces; by anything else, in one list.
      isSorted = column !== 0;
      const order = rows.map((one, index) => ({ one, index }));
      order.sort((a, b) => {
        const [x, y] = [a.one.keys[column], b.one.keys[column]];
        return isSorted && x !== y ? (x < y ? -direction : direction) : (a.index - b.index) * (isSorted ? 1 : direction);
      });
      if (isSorted) {
        flat.append(...order.map(({ one }) => one.row));
        table.append(flat);
      } else {
        flat.remove();
        for (const group of groups) group.body.append(group.heading);
        for (const { one } of order) one.body.append(one.row);
        table.append(...(direction > 0 ? groups : [...groups].reverse()).map((group) => group.body));
      }
      filter();
    };

    headings.forEach((heading, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        direction = column === index ? -direction : 1;
        column = index;
        sort();
      });
    });
    headings[0].setAttribute("aria-sort", "ascending");

    // --- fix commands ---

    const dialog = byId("fix-dialog");
    const commands = byId("fix-commands");
    const copied = dialog.querySelector("[role=status]");
    const lines = (node) => [...(node?.querySelectorAll("code") ?? [])].map((line) => line.textContent.trimEnd());
    const forms = [...document.querySelectorAll("pre.form")].map(lines);

    const fix = (one) => {
      const form = forms[one.row.cells[4].dataset.form - 1];
      if (!form) return { common: [], own: lines(one.row.cells[0]) };
      const names = {
        "YOUR-NAMESPACE/YOUR-REPOSITORY": one.repository,
        "YOUR-TAG": one.tag,
        "YOUR-DIGEST": one.digest.slice(one.digest.indexOf(":") + 1),
      };
      const filled = form.map((line) =>
        line.replace(/YOUR-NAMESPACE\/YOUR-REPOSITORY|YOUR-TAG|YOUR-DIGEST/g, (name) => names[name]),
      );
      // The first lines, up to the one that names the image, prepare for all images of the repository.
      const start = form.findIndex((line) => /YOUR-TAG|YOUR-DIGEST/.test(line));
      return { common: filled.slice(0, Math.max(start, 0)), own: filled.slice(Math.max(start, 0)) };
    };

    const show = (title, chosen) => {
      byId("fix-title").textContent = title;
      const said = new Set();
      const needed = chosen.map(fix).flatMap(({ common, own }) => {
        // All of them or none: a line without the one before it would run although that one had failed.
        const block = common.join("\n");
        if (said.has(block)) return own;
        said.add(block);
        return [...common, ...own];
      });
      commands.replaceChildren(
        ...needed.map((line) => {
          const code = document.createElement("code");
          code.textContent = `${line}\n`;
          return code;
        }),
      );
      copied.textContent = "";
      dialog.showModal();
    };

    table.addEventListener("click", (event) => {
      const button = event.target.closest("td button");
      if (!button) return;
      const row = button.closest("tr");
      const chosen = rows.find((one) => one.row === row);
      show(chosen.keys[0], [chosen]);
    });
    byId("fix-shown").addEventListener("click", () => {
      show(`Commands for ${shown.length} ${shown.length === 1 ? "finding" : "findings"}`, shown);
    });
    byId("fix-copy").addEventListener("click", () => copy(commands, copied));
    byId("fix-close").addEventListener("click", () => dialog.close());

    byId("filter").hidden = false;
    document.documentElement.classList.add("script");
    tell();
  }
}
