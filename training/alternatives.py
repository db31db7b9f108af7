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
population area currency language flag anthem climate history economy
mayor president king queen governor minister emperor ambassador
wrote composed painted directed designed translated
founded dissolved renamed acquired
born married buried educated
revenue profit loss turnover debt budget salary
olympics elections championships games
library museum office bank clinic gym
height width depth length
bread rice cheese chocolate milk meat fish honey garlic onions grapes eggs pasta butter
adults children infants women men
hepatitis bronchitis pneumonia arthritis diabetes asthma
treatment diagnosis prevention causes
type_1 type_2 type_3
melting boiling freezing
windows linux macos android
constitution treaty charter contract
president chancellor secretary
city lake island mountain river port
river mountain lake bridge tunnel
asia europe africa america oceania
university school cathedral hospital
fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth
car bicycle motorcycle truck boat
cats dogs horses cows birds rabbits wolves sheep
sleep hunt swim run climb breed
invented discovered patented described
math physics chemistry biology geography
prices wages exports taxes rents
surgery pregnancy breakfast dinner exercise
insurance warranty contract subscription
smoking drinking eating parking photography camping
sugar salt gluten alcohol caffeine fat
cancer stroke asthma obesity depression
reduce increase
elected arrested promoted nominated
business use production service
password licence deposit permit
hourly daily weekly monthly yearly
single double triple
north_america south_america
east_germany west_germany
north_korea south_korea
teacher student doctor patient lawyer engineer
employer employee
landlord tenant
buyer seller
lender borrower
parent child
husband wife
son daughter
arrival departure
income expense
supply demand
import_duty export_duty
birth death
win lose
success failure
true false
allow forbid
allowed forbidden
legal illegal
safe dangerous
hardware software
solid liquid gas
proton neutron electron
acid base
predator prey
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
base64 base32 hex url
prefix suffix
tree stack queue heap graph
s3 ftp gcs azure
server client
search match
sum mean product
request response
get post put delete
int8 int16 int32 int64
float16 float32 float64
sha1 sha256 md5
http https
utf8 utf16 ascii latin1
merge split
load save
show hide
warning error
width height
day month year
horizontal vertical
union intersection difference
inner left right outer
docker kubernetes
numpy pandas scipy
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
人口 面积 货币 语言 国旗 气候 历史
总统 总理 国王 外长 大使
作者 译者 导演 编剧 主演
成立 解散 改名 上市
收入 利润 支出 亏损 预算 债务
图书馆 博物馆 银行 医院 超市 体育馆
周一 周二 周三 周四 周五 周六 周日
星期一 星期二 星期三 星期四 星期五 星期六 星期日
上午 下午 晚上
高度 宽度 长度 深度
米 厘米 英尺 公里
美元 欧元 英镑 日元 人民币
兆 千字节 吉字节
成人 儿童 婴儿 老人
肝炎 肺炎 肾炎 胃炎 关节炎
鸡蛋 牛奶 海鲜 巧克力 葡萄 豆腐 羊肉 西瓜
维生素a 维生素b 维生素c 维生素d 维生素e
铁 铜 铝 锌 银 金 铅
熔点 沸点 密度
windows linux macos 安卓
宪法 合同法 劳动法 刑法 民法典
一年级 二年级 三年级 四年级 五年级 六年级
数学 语文 英语 物理 化学
城市 岛屿 湖泊 港口
亚洲 欧洲 非洲 南美洲 北美洲
河流 山脉 湖泊 桥梁
皇帝 宰相 将军 诗人
汽车 摩托车 自行车 货车
体重 食欲 身高 血糖
饭前 饭后 睡前
猫 狗 马 兔子 羊 企鹅
睡觉 捕猎 繁殖 游泳
米饭 面条 饺子 鸡肉
进口 出口
狗 猫 兔子 鸟
吸烟 喝酒 拍照 停车
糖 盐 酒精 咖啡因 脂肪
饮料 面包 酸奶 饼干
保险 保修 合同
营业 生产 使用 销售
游泳 飞行 爬树 冬眠
白天 夜晚
晴天 雨天
东边 西边 南边 北边
长江 黄河 珠江 淮河
每天 每周 每月 每年
单人 双人
买方 卖方
出租人 承租人
债权人 债务人
原告 被告
老师 学生
医生 患者
丈夫 妻子
出生 去世
胜利 失败
合法 非法
允许 禁止
安全 危险
硬件 软件
固体 液体 气体
质子 中子 电子
第一季度 第二季度 第三季度 第四季度
上半年 下半年
去年 今年 明年
公历 农历
涨价 降价
上涨 下跌
赢 输
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
