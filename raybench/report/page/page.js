"use strict";
// Each figure holds a still picture and its chart as data. Where scripts run, the live chart takes the
// picture's place: as wide as the page, answering the pointer. Where they do not, the picture stays.
(() => {
  const tip = document.getElementById("tip");
  const refuse = () => Promise.reject(new Error("this page loads nothing"));
  const loader = { load: refuse, sanitize: refuse, http: refuse, file: refuse };

  // Text only, whatever the values are: nothing in a run may become markup.
  const show = (handler, event, item, value) => {
    if (value === null || value === undefined || value === "") {
      tip.hidden = true;
      return;
    }
    const rows = typeof value === "object" ? Object.entries(value) : [["", value]];
    tip.replaceChildren(...rows.map((pair) => {
      const row = document.createElement("div");
      row.append(...pair.map((text) => {
        const span = document.createElement("span");
        span.textContent = String(text);
        return span;
      }));
      return row;
    }));
    tip.hidden = false;
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 6);
    const below = event.clientY + 14;
    const top = below + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : below;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, top)}px`;
  };

  const draw = async (figure) => {
    const holder = figure.querySelector(".drawing");
    const still = holder.firstElementChild;
    const live = document.createElement("div");
    holder.append(live);
    try {
      const chart = JSON.parse(figure.querySelector("script").textContent);
      await vegaEmbed(live, chart, {
        mode: "vega-lite", renderer: "svg", actions: false, defaultStyle: false, tooltip: show, loader,
      });
      still.remove();
      figure.dataset.live = "yes";
    } catch (error) {
      live.remove();
      figure.dataset.live = "no";
      console.error(figure.id, error);
    }
  };

  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  document.querySelectorAll("figure.chart").forEach(draw);
})();
