// What is wrong with a page, as a reader would see it: text that is cut, that overlaps, or that leaves the screen.
(() => {
  const faults = [];
  const say = (what, text, more = "") => faults.push(`${what}: "${text.trim().slice(0, 60)}" ${more}`);
  const seen = (box) => box.width > 0.5 && box.height > 0.5;
  const hit = (a, b, slack) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > slack && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > slack;
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) say("the page is wider than the screen", "", document.documentElement.scrollWidth);
  const unseen = (node) => node.closest("caption.unseen, .skip, [hidden]") || !node.checkVisibility();
  const collide = (found, slack) => {
    found.sort((a, b) => a.box.top - b.box.top);
    found.forEach((one, n) => {
      for (let k = n + 1; k < found.length && found[k].box.top < one.box.bottom; k++)
        if (one.node !== found[k].node && hit(one.box, found[k].box, slack)) say("overlap", one.text, `"${found[k].text.slice(0, 60)}"`);
    });
  };
  // Drawings: each label within its drawing, and none on another.
  for (const svg of document.querySelectorAll("svg[role=img]")) {
    if (!svg.checkVisibility()) continue;
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].map((node) => ({ node, text: node.textContent, box: node.getBoundingClientRect() }));
    for (const { text, box } of texts)
      if (box.left < frame.left - 2 || box.right > frame.right + 2 || box.top < frame.top - 2 || box.bottom > frame.bottom + 2)
        say("outside of its drawing", text, svg.getAttribute("aria-label").slice(0, 60));
    collide(texts.filter(({ box }) => seen(box)), 2);
    if ((svg.getAttribute("aria-label") ?? "").length < 20) say("drawing without words", svg.outerHTML);
  }
  // Text of the page.
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (!node.textContent.trim() || parent.closest("svg, script, style, title") || unseen(parent)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) {
      if (!seen(box)) continue;
      found.push({ node, text: node.textContent, box });
      if (!parent.closest(".scroll") && (box.left < -1 || box.right > width + 1)) say("off the screen", node.textContent);
      const cell = parent.closest("td, th, dd, dt, figcaption, p, h1, h2, h3, summary");
      const room = cell?.getBoundingClientRect();
      if (room && (box.right > room.right + 1 || box.left < room.left - 1)) say("cut", node.textContent);
    }
  }
  collide(found, 3);
  // Tables: whole on a wide screen, scrolled on a narrow one.
  for (const box of document.querySelectorAll(".scroll"))
    if (width >= 1000 && box.checkVisibility() && box.scrollWidth > box.clientWidth + 1)
      say("columns are cut", box.getAttribute("aria-label"), `${box.scrollWidth} of ${box.clientWidth} px`);
  return faults;
})()
