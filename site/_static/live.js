// The lab's widgets without a kernel. A page has, for each,
//
//   <div class="live" data-widget="notebooks/live/05/dial.js"> <img …> </div>
//
// and this puts the widget in the place of its picture as soon as it comes into view. What a widget shows, and its class's
// own browser side, are scripts that call `live.put(address, …)`: scripts, and not modules or JSON, because those are
// refused where a page is opened as a file.

const live = (() => {
  const asked = {}, arrived = {}, styled = new Set();

  const put = (address, what) => { arrived[address] = what; };

  // what the script at an address, below the root of the site, put there
  function get(root, address) {
    return asked[address] ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = root + address;
      script.onload = () => resolve(arrived[address]);
      script.onerror = () => reject(new Error(`no ${address}`));
      document.head.append(script);
    });
  }

  const view = (text) => new DataView(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
  const equal = (a, b) => a === b || JSON.stringify(a) === JSON.stringify(b);

  // The part of anywidget's model that the widgets use: traits, and who is told when one changes. Nobody else is.
  function newModel(traits, bytes) {
    const values = { ...traits }, told = {};
    for (const [name, text] of Object.entries(bytes)) values[name] = view(text);
    return {
      get: (name) => values[name],
      set(name, value) {
        const changed = Object.entries(typeof name === "string" ? { [name]: value } : name)
          .filter(([key, now]) => !equal(values[key], now));
        for (const [key, now] of changed) values[key] = now;
        for (const [key] of changed) [...(told[`change:${key}`] ?? [])].forEach((tell) => tell());
      },
      save_changes() {},
      send() {},
      on: (event, tell) => { (told[event] ??= new Set()).add(tell); },
      off: (event, tell) => { told[event]?.delete(tell); },
    };
  }

  // {model, view(el)} of the widget at an address
  function open(root, address) {
    return asked[`open ${address}`] ??= get(root, address).then(async ({ source, traits, bytes }) => {
      const { code, style } = await get(root, source);
      if (!styled.has(style)) {
        styled.add(style);
        document.head.append(Object.assign(document.createElement("style"), { textContent: style }));
      }
      const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
      const { default: widget } = await import(url);
      const model = newModel(traits, bytes);
      model.widget_manager = {
        get_model: async (name) => (await open(root, address.replace(/[^/]*$/, `${name}.js`))).model,
        async create_view(other) { return { el: await drawn(other), remove() {} }; },
      };
      model.widget = widget;
      return { model };
    });
  }

  async function drawn(model) {
    const el = document.createElement("div");
    await model.widget.render({ model, el });
    return el;
  }

  // the widget at data-widget, in the place of what the element holds
  async function show(element, root) {
    const { model } = await open(root, element.dataset.widget);
    element.replaceChildren(await drawn(model));
    element.classList.add("turns");
  }

  document.addEventListener("DOMContentLoaded", () => {
    const root = document.documentElement.dataset.content_root ?? "./";
    const seen = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach(({ target }) => {
      seen.unobserve(target);
      show(target, root).catch((error) => console.error(target.dataset.widget, error));  // its picture stays
    }), { rootMargin: "600px" });
    document.querySelectorAll(".live[data-widget]").forEach((element) => seen.observe(element));
  });

  return { put, newModel };
})();
