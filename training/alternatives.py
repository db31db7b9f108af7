"""Words of one kind, of which a near miss puts one in the place of another.

Units, dates, places, opposites, what functions do. Each line is one kind; a word of several parts is joined by an
underscore. All lower case.
"""

from __future__ import annotations

ENGLISH = """
january february march april may june july august september october november december
monday tuesday wednesday thursday friday saturday sunday
north south east west
northern southern eastern western
france germany italy spain portugal poland sweden norway finland denmark greece turkey austria hungary ireland belgium
china japan india korea vietnam thailand indonesia malaysia pakistan iran iraq israel egypt nigeria kenya ethiopia
canada mexico brazil argentina chile peru colombia cuba australia new_zealand
paris berlin rome madrid lisbon warsaw stockholm oslo helsinki athens vienna budapest dublin brussels prague london
beijing tokyo delhi seoul hanoi bangkok jakarta tehran baghdad cairo nairobi moscow ottawa lima bogota havana canberra
french german italian spanish portuguese polish swedish norwegian dutch greek turkish hungarian russian irish
chinese japanese korean indian arabic vietnamese thai persian hebrew
california texas florida ohio virginia georgia alaska arizona colorado oregon nevada utah michigan
meters kilometers miles feet inches centimeters millimeters yards
kilograms grams pounds tons ounces milligrams
seconds minutes hours days weeks months years decades centuries
liters gallons milliliters pints
bytes kilobytes megabytes gigabytes terabytes bits
celsius fahrenheit kelvin
dollars euros pounds yen rupees
volts amperes watts joules newtons ohms pascals hertz
red blue green yellow black white orange purple brown
first second third fourth fifth sixth last
one two three four five six seven eight nine ten twelve
hydrogen helium lithium carbon nitrogen oxygen sodium magnesium iron copper zinc silver gold lead mercury
mercury venus earth mars jupiter saturn uranus neptune
heart liver kidney lung brain stomach pancreas spleen skin
vitamin_a vitamin_c vitamin_d vitamin_e vitamin_k
increase decrease
increases decreases
increased decreased
higher lower
highest lowest
largest smallest
longest shortest
oldest youngest
maximum minimum
before after
above below
inside outside
upper lower
left right
male female
men women
mother father
brother sister
king queen
summer winter spring autumn
morning evening
buy sell
import export
enable disable
start stop
open close
hot cold
positive negative
acute chronic
viral bacterial
internal external
input output
public private
ancient modern
"""

CODE = """
python java javascript ruby go rust perl php swift kotlin scala
read write
encode decode
encrypt decrypt
compress decompress
serialize deserialize
upload download
push pop
insert remove
add remove
append prepend
lock unlock
connect disconnect
parse format
get set
max min
maximum minimum
first last
row column
rows columns
list dict tuple set string array
integer float boolean string
ascending descending
uppercase lowercase
upper lower
left right
sine cosine tangent
sin cos tan
json xml csv yaml html
mean median mode variance
sum product
increment decrement
create delete
sort reverse shuffle
synchronous asynchronous
mysql postgresql sqlite mongodb redis
linux windows macos
rounded truncated
key value
before after
hash checksum
process thread
forward backward
inner outer
bytes str
file directory
"""

CHINESE = """
一月 二月 三月 四月 五月 六月 七月 八月 九月 十月 十一月 十二月
东部 西部 南部 北部
东北 西北 东南 西南
法国 德国 英国 美国 日本 韩国 中国 俄罗斯 意大利 西班牙 印度 越南 泰国 加拿大 澳大利亚 巴西 埃及
巴黎 柏林 伦敦 华盛顿 东京 首尔 莫斯科 罗马 马德里 新德里 河内 曼谷 渥太华 开罗
北京 上海 广州 深圳 天津 重庆 成都 武汉 南京 杭州 西安
广东 浙江 江苏 四川 湖南 湖北 山东 河南 河北 福建 云南 陕西
香港 澳门 台湾
英语 法语 德语 日语 韩语 俄语 西班牙语
明朝 清朝 唐朝 宋朝 元朝 汉朝 秦朝
春天 夏天 秋天 冬天
红色 蓝色 绿色 黄色 黑色 白色
千米 公里 厘米 毫米 英里
公斤 千克 毫克 吨
小时 分钟
摄氏度 华氏度
第一 第二 第三 第四 第五 最后
最大 最小
最高 最低
最长 最短
最早 最晚
增加 减少
上升 下降
提高 降低
升高 降低
之前 之后
以前 以后
以上 以下
左侧 右侧
左边 右边
男性 女性
父亲 母亲
儿子 女儿
哥哥 弟弟
心脏 肝脏 肾脏 脾脏
高血压 低血压
急性 慢性
阳性 阴性
良性 恶性
细菌 病毒 真菌
氢气 氧气 氮气
水星 金星 火星 木星 土星
输入 输出
上传 下载
导入 导出
开启 关闭
启用 禁用
读取 写入
内部 外部
古代 现代
小学 中学 大学
"""


def kinds(text: str) -> dict[str, list[str]]:
    """Word -> the other words of its kind (those of its first line, where it stands in several)."""
    found: dict[str, list[str]] = {}
    for line in text.strip().split("\n"):
        words = [word.replace("_", " ") for word in line.split()]
        for word in words:
            found.setdefault(word, [other for other in words if other != word])
    return found


ALTERNATIVES = {"en": kinds(ENGLISH), "code": kinds(CODE), "zh": kinds(CHINESE)}
