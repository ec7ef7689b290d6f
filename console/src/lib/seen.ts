// What an answer to a click says has to be in sight, wherever the page was scrolled to.

/** For `use:`: brings what has just come into sight, and moves nothing when it is there. */
export function seen(node: HTMLElement) {
  node.scrollIntoView({ block: "nearest" });
}
