// What every page needs of a script: regions that scroll can be reached with the keyboard.
"use strict";
{
  const REGIONS = ".nb-output, .formula, .md-typeset__scrollwrap, .highlight code";
  const reach = ({ target }) => {
    const scrolls = target.scrollWidth > target.clientWidth || target.scrollHeight > target.clientHeight;
    target.toggleAttribute("data-scrolls", scrolls);
    if (scrolls) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  };
  const seen = new ResizeObserver((entries) => entries.forEach(reach));
  addEventListener("load", () => {
    document.querySelectorAll(REGIONS).forEach((region) => seen.observe(region));
  });
}
