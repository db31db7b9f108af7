// One or two settings of a ranking: a served name, an instruction, and what happens to long documents.
import { element } from "./dom.js";
import { t } from "./i18n.js";
import { PRESETS } from "./presets.js";

export const NAMES = ["A", "B"];

/** What stands in the fields of a setting. */
export class Setting {
  model = "";
  instruction = "";
  longDocuments = "";
}

const LONG_DOCUMENTS = ["", "truncate", "chunk", "error"];

/** The fields of the settings shown, A alone or A and B. */
export function settingFields(settings, models, onChange) {
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
    const preset = element("select", { onchange: (event) => ((setting.instruction = PRESETS[event.target.value] ?? ""), (instruction.value = setting.instruction), onChange()) }, [
      element("option", { value: "" }, t("ownInstruction")),
      Object.keys(PRESETS).map((key) => element("option", { value: key }, t("presets")[key])),
    ].flat());
    const choose = () => {
      preset.value = Object.keys(PRESETS).find((key) => PRESETS[key] === setting.instruction) ?? "";
    };
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
      ),
      element("label", { class: "field" }, element("span", { class: "name" }, t("instruction")), instruction),
    );
  });
}
