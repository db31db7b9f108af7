// One or two settings of a ranking: a served name, an instruction, long documents, and what orders first.
import { element } from "./dom.js";
import { t } from "./i18n.js";

export const NAMES = ["A", "B"];

/** What stands in the fields of a setting. */
export class Setting {
  model = "";
  instruction = "";
  longDocuments = "";
  cascadeModel = "";
  cascadeDepth = 0;
}

const LONG_DOCUMENTS = ["", "truncate", "chunk", "error"];

/** The fields of the settings shown, A alone or A and B; a served name that orders first needs a second one. */
export function settingFields(settings, { models, instructions }, onChange) {
  return settings.map((setting, place) => {
    const name = NAMES[place];
    const several = settings.length > 1;
    const model = element(
      "select",
      { onchange: (event) => ((setting.model = event.target.value), describe(), onChange()) },
      models.map(({ name: served }, index) => element("option", { value: index ? served : "", selected: setting.model === served }, served)),
    );
    const instruction = element("textarea", {
      rows: 2,
      value: setting.instruction,
      oninput: (event) => ((setting.instruction = event.target.value), choose(), onChange()),
    });
    const long = element(
      "select",
      { onchange: (event) => ((setting.longDocuments = event.target.value), onChange()) },
      LONG_DOCUMENTS.map((rule) => element("option", { value: rule, selected: setting.longDocuments === rule }, t("longRules")[rule])),
    );
    const preset = element("select", { onchange: (event) => ((setting.instruction = event.target.value), (instruction.value = setting.instruction), choose(), onChange()) }, [
      element("option", { value: "" }, t("ownInstruction")),
      instructions.map(({ id, use }) => element("option", { value: `@${id}`, title: use }, id)),
    ].flat());
    const hint = element("p", { class: "hint" });
    const choose = () => {
      const found = instructions.find(({ id }) => `@${id}` === setting.instruction.trim().split(/\s/)[0]);
      preset.value = found ? `@${found.id}` : "";
      hint.textContent = found ? found.text : "";
    };
    const first = element(
      "select",
      { onchange: (event) => ((setting.cascadeModel = event.target.value), (depth.disabled = !setting.cascadeModel), onChange()) },
      [element("option", { value: "" }, t("longRules")[""]), ...models.map(({ name: served }) => element("option", { value: served, selected: setting.cascadeModel === served }, served))],
    );
    const depth = element("input", {
      type: "number", min: 1, value: setting.cascadeDepth || "", placeholder: t("cascadeDepthHint"), disabled: !setting.cascadeModel,
      oninput: (event) => ((setting.cascadeDepth = Number(event.target.value)), onChange()),
    });
    const describe = () => {
      instruction.placeholder = (models.find(({ name: served }) => served === setting.model) ?? models[0])?.instruction || t("instructionHint");
    };
    choose();
    describe();
    return element(
      "div",
      { class: `setting setting-${name.toLowerCase()}`, role: "group", "aria-labelledby": `setting-${name}` },
      element("p", { class: "setting-title", id: `setting-${name}` }, several && element("span", { class: "badge" }, name), several ? t("settingsOf")(name) : t("settings")),
      element(
        "div",
        { class: "pair" },
        element("label", { class: "field" }, element("span", { class: "name" }, t("model")), model),
        element("label", { class: "field" }, element("span", { class: "name" }, t("preset")), preset),
        element("label", { class: "field" }, element("span", { class: "name" }, t("longDocuments")), long),
        models.length > 1 && element("label", { class: "field" }, element("span", { class: "name" }, t("cascade")), first),
        models.length > 1 && element("label", { class: "field" }, element("span", { class: "name" }, t("cascadeDepth")), depth),
      ),
      element("label", { class: "field" }, element("span", { class: "name" }, t("instruction")), instruction),
      hint,
    );
  });
}
